# A host uses a disk that somebody has made in the console, and takes back what it has lost.
IQN=$DISK
discover
login
volume=$(disk 0)
mkdir -p /mnt/volume /mnt/then
must mkfs.ext4 -q -F "$volume"
must mount "$volume" /mnt/volume
echo "all that I know" >/mnt/volume/thesis
must umount /mnt/volume # so that it is not in the journal alone, which cannot be replayed where nothing can be written
must mount "$volume" /mnt/volume
begin_load /mnt/volume --size=4m
mark connected
end_load
must rm /mnt/volume/thesis
sync
mark deleted
IQN=$answer
must iscsiadm -m node -o new -T "$IQN" -p "$PORTAL"
login
must mount -o ro,noload "$(disk 0)" /mnt/then
must grep -x "all that I know" /mnt/then/thesis
must umount /mnt/then
logout
IQN=$DISK
must umount /mnt/volume
logout
