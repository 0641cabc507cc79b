/* What a power cut leaves of a directory: a copy of each file as it was when it was last synced, and of each directory's names as they
 * were when that was synced. Loaded before the C library into a process that works in POWER_DIR; writes to POWER_SHADOW. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A number is used again after its file is gone: the birth tells them apart. */
static int name_of(int fd, char kind, char *name, size_t size) {
    struct statx found;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &found) != 0) return -1;
    snprintf(name, size, "%s/%c-%llu-%lld-%u", getenv("POWER_SHADOW"), kind, (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    return 0;
}

static void copy_bytes(int from, int to, off_t start, off_t end) {
    static __thread char buffer[1 << 16];
    while (start < end) {
        size_t part = end - start < (off_t)sizeof buffer ? (size_t)(end - start) : sizeof buffer;
        ssize_t got = pread(from, buffer, part, start);
        if (got <= 0) return; /* It is being cut, and will be synced again. */
        if (pwrite(to, buffer, got, start) != got) abort();
        start += got;
    }
}

static void copy_file(int from, int to, off_t size) {
    if (ftruncate(to, size) != 0) abort();
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0) break;
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size) hole = size;
        copy_bytes(from, to, data, hole);
        at = hole;
    }
}

static void list_directory(int fd, int to) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    DIR *directory = opendir(path);
    if (directory == NULL) abort();
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        int child = openat(dirfd(directory), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0) continue;
        struct stat found;
        char shadow[512];
        if (fstat(child, &found) == 0 && name_of(child, S_ISDIR(found.st_mode) ? 'd' : 'f', shadow, sizeof shadow) == 0)
            dprintf(to, "%s %s\n", strrchr(shadow, '/') + 1, entry->d_name);
        close(child);
    }
    closedir(directory);
}

static void keep(int fd) {
    const char *root = getenv("POWER_DIR");
    char link[64], path[4096], shadow[512], fresh[600];
    if (root == NULL) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (strncmp(path, root, strlen(root)) != 0) return;
    struct stat found;
    if (fstat(fd, &found) != 0) return;
    int is_directory = S_ISDIR(found.st_mode);
    if (name_of(fd, is_directory ? 'd' : 'f', shadow, sizeof shadow) != 0) return;
    snprintf(fresh, sizeof fresh, "%s.%ld.new", shadow, (long)syscall(SYS_gettid));
    int to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) abort();
    if (is_directory) {
        list_directory(fd, to);
    } else {
        int from = open(link, O_RDONLY | O_CLOEXEC);
        if (from < 0) abort();
        copy_file(from, to, found.st_size);
        close(from);
    }
    close(to);
    if (rename(fresh, shadow) != 0) abort();
}

static int synced(long call, int fd) {
    int result = (int)syscall(call, fd);
    int error = errno;
    if (result == 0) keep(fd);
    errno = error;
    return result;
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }
