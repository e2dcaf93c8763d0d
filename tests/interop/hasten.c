/* Preloaded into iscsi-test-cu, which sleeps for a whole minute between two looks whether SANITIZE is over. */
#include <time.h>

unsigned int sleep(unsigned int seconds) {
  struct timespec left = {seconds < 5 ? seconds : 5, 0};
  nanosleep(&left, &left);
  return 0;
}
