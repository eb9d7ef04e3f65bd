/* Cuts a file system off from its disk as a power cut would: what is not on the disk now never comes there.
 *
 * EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH; needs CAP_SYS_ADMIN. In C, because an ioctl is unsafe in Rust. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(int count, char **words) {
    uint32_t without_flushing_the_journal = 2;
    int directory = count == 2 ? open(words[1], O_RDONLY | O_DIRECTORY) : -1;
    if (directory < 0 || ioctl(directory, 0x8004587d, &without_flushing_the_journal) != 0) {
        perror("cut");
        return 1;
    }
    return 0;
}
