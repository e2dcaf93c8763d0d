/* Preloaded into iscsi-test-cu, which sleeps for a whole minute between two looks whether SANITIZE is over. Before that, what is in
 * the environment as BEFORE_A_MINUTE is done: by then it has seen that SANITIZE goes on. */
#include <stdlib.h>
#include <time.h>

unsigned int sleep(unsigned int seconds) {
  const char *command = getenv("BEFORE_A_MINUTE");
  if (seconds >= 60 && command && system(command))
    abort();
  struct timespec left = {seconds < 60 ? seconds : 1, 0};
  nanosleep(&left, &left);
  return 0;
}
