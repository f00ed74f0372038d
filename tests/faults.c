// Faults under a process, for tests: loaded by LD_PRELOAD, idle until `faults_arm` or the variable FAULTS_SHIM says what
// to do. Only calls on paths below `root` are seen. They are serialised, so that the log has the order of the calls.
//
//   root=PATH             what is watched
//   log=PATH              a line for each call: op, kind of file, result or -errno, offset of a write, path, new path
//   kill=N,OPS,KINDS      SIGKILL to oneself before the Nth matching call; with torn=1 after half of it, if a write
//   fail=ERRNO,N,OPS,KINDS  the Nth matching call and all later ones fail; with partial=1 the Nth write does half first
//   fill=N,OPS,KINDS      before the Nth matching call, the file named by ballast=PATH takes all room on its disk
//   short=PERCENT         writes that write half
//   eintr=PERCENT         writes, syncs and opens that are interrupted before they begin
//   clock=1, monotonic=1  the wall clock jumps by up to 30 days either way, the steady one ahead (20 s altogether)
//   seed=N                of all draws
//
// OPS are letters: o(pen) c(reate, or open what may be created) w(rite) s(ync) r(ename) u(nlink) m(kdir) t(runcate);
// KINDS: t(emporary) j(ournal) f(older) o(ther); * is any. A rule may end in a comma and what must be in the path.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct rule {
    int at, seen;
    char ops[16], kinds[16], part[64];
};

static struct {
    char root[PATH_MAX], ballast[PATH_MAX];
    int log, error, torn, partial, shorts, eintr, clock, monotonic;
    struct rule kill, fail, fill;
    uint64_t seed;
    int64_t day_offset, ahead;
} plan;

static int armed;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static uint64_t draw(uint64_t below) {
    plan.seed = plan.seed * 6364136223846793005u + 1442695040888963407u;
    return (plan.seed >> 33) % below;
}

static void parse_rule(struct rule *rule, const char *text) {
    memset(rule, 0, sizeof *rule);
    sscanf(text, "%d,%15[^,],%15[^,],%63s", &rule->at, rule->ops, rule->kinds, rule->part);
}

// Returns 0, or -1 if the log cannot be opened.
int faults_arm(const char *spec) {
    char text[2 * PATH_MAX], *rest, *item, *value;
    memset(&plan, 0, sizeof plan);
    plan.log = -1;
    snprintf(text, sizeof text, "%s", spec);
    for (item = strtok_r(text, ";", &rest); item; item = strtok_r(NULL, ";", &rest)) {
        if (!(value = strchr(item, '='))) continue;
        *value++ = 0;
        if (!strcmp(item, "root")) snprintf(plan.root, sizeof plan.root, "%s", value);
        if (!strcmp(item, "log")) {
            plan.log = (int)syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
            if (plan.log < 0) return -1;
        }
        if (!strcmp(item, "kill")) parse_rule(&plan.kill, value);
        if (!strcmp(item, "fail") && strchr(value, ',')) {
            plan.error = atoi(value);
            parse_rule(&plan.fail, strchr(value, ',') + 1);
        }
        if (!strcmp(item, "fill")) parse_rule(&plan.fill, value);
        if (!strcmp(item, "ballast")) snprintf(plan.ballast, sizeof plan.ballast, "%s", value);
        if (!strcmp(item, "torn")) plan.torn = atoi(value);
        if (!strcmp(item, "partial")) plan.partial = atoi(value);
        if (!strcmp(item, "short")) plan.shorts = atoi(value);
        if (!strcmp(item, "eintr")) plan.eintr = atoi(value);
        if (!strcmp(item, "clock")) plan.clock = atoi(value);
        if (!strcmp(item, "monotonic")) plan.monotonic = atoi(value);
        if (!strcmp(item, "seed")) plan.seed = strtoull(value, NULL, 10);
    }
    armed = 1;
    return 0;
}

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *spec = getenv("FAULTS_SHIM");
    if (spec) faults_arm(spec);
}

static int watched(const char *path) {
    size_t length = strlen(plan.root);
    return length && !strncmp(path, plan.root, length) && (path[length] == '/' || !path[length]);
}

// The path of a descriptor, or an empty string.
static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void absolute(int folder, const char *path, char *out) {
    char base[PATH_MAX];
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    if (folder != AT_FDCWD)
        path_of(folder, base);
    else if (!getcwd(base, sizeof base))
        base[0] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) out[0] = 0;
}

static char kind_of(const char *path, int fd) {
    struct stat info;
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (fd >= 0 && !fstat(fd, &info) && S_ISDIR(info.st_mode)) return 'f';
    if (!strncmp(name, ".tmp-", 5)) return 't';
    return strcmp(name, "journal.log") ? 'o' : 'j';
}

static void note(const char *op, char kind, long result, long offset, const char *path, const char *other) {
    char line[2 * PATH_MAX + 128];
    if (plan.log < 0) return;
    int length = snprintf(line, sizeof line, "%s\t%c\t%ld\t%ld\t%s\t%s\n", op, kind, result, offset, path, other);
    syscall(SYS_write, plan.log, line, (size_t)length);
}

static int matches(struct rule *rule, char op, char kind, const char *path) {
    return rule->at && (rule->ops[0] == '*' || strchr(rule->ops, op)) &&
           (rule->kinds[0] == '*' || strchr(rule->kinds, kind)) && strstr(path, rule->part);
}

static void fill_disk(void) {
    static char page[4096];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, plan.ballast, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    while (syscall(SYS_write, fd, page, sizeof page) > 0);
    syscall(SYS_close, fd);
}

static void die(char op, char kind, const char *path) {
    char name[] = {'k', 'i', 'l', 'l', ' ', op, 0};
    note(name, kind, 0, 0, path, "");
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

enum { GO, HALF, TEAR, FAIL };

// What is to become of a call; FAIL has set errno. Dies here if that is the plan.
static int verdict(char op, char kind, const char *path) {
    if (matches(&plan.fill, op, kind, path) && ++plan.fill.seen == plan.fill.at) fill_disk();
    if (matches(&plan.kill, op, kind, path) && ++plan.kill.seen == plan.kill.at) {
        if (!plan.torn || op != 'w') die(op, kind, path);
        return TEAR;
    }
    if (matches(&plan.fail, op, kind, path) && ++plan.fail.seen >= plan.fail.at) {
        if (plan.partial && op == 'w' && plan.fail.seen == plan.fail.at) return HALF;
        errno = plan.error;
        return FAIL;
    }
    if (plan.eintr && strchr("wsoc", op) && (int)draw(100) < plan.eintr) {
        errno = EINTR;
        return FAIL;
    }
    return op == 'w' && plan.shorts && (int)draw(100) < plan.shorts ? HALF : GO;
}

// Wraps a call on paths: `op` is its letter, `name` stands in the log.
#define ON_PATH(op, name, call, folder, path, other_folder, other)                                                     \
    do {                                                                                                               \
        char full[PATH_MAX], second[PATH_MAX] = "";                                                                    \
        if (!armed) return call;                                                                                       \
        absolute(folder, path, full);                                                                                  \
        if (other) absolute(other_folder, (const char *)other, second);                                                \
        if (!watched(full) && !watched(second)) return call;                                                           \
        pthread_mutex_lock(&mutex);                                                                                    \
        char kind = kind_of(full, -1);                                                                                 \
        int result = verdict(op, kind, full) == FAIL ? -1 : call;                                                      \
        int error = errno;                                                                                             \
        note(name, kind, result < 0 ? -error : result, 0, full, second);                                               \
        pthread_mutex_unlock(&mutex);                                                                                  \
        errno = error;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

#define ON_DESCRIPTOR(op, name, call, fd)                                                                              \
    do {                                                                                                               \
        char full[PATH_MAX];                                                                                           \
        if (!armed) return call;                                                                                       \
        path_of(fd, full);                                                                                             \
        if (!watched(full)) return call;                                                                               \
        pthread_mutex_lock(&mutex);                                                                                    \
        char kind = kind_of(full, fd);                                                                                 \
        int result = verdict(op, kind, full) == FAIL ? -1 : call;                                                      \
        int error = errno;                                                                                             \
        note(name, kind, result < 0 ? -error : result, 0, full, "");                                                   \
        pthread_mutex_unlock(&mutex);                                                                                  \
        errno = error;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

typedef ssize_t (*writer)(int fd, const void *data, size_t count, off64_t at);

static ssize_t on_write(writer call, int fd, const void *data, size_t count, off64_t at) {
    char full[PATH_MAX];
    if (!armed) return call(fd, data, count, at);
    path_of(fd, full);
    if (!watched(full)) return call(fd, data, count, at);
    pthread_mutex_lock(&mutex);
    char kind = kind_of(full, fd);
    int what = verdict('w', kind, full);
    ssize_t result = -1;
    if (what != FAIL) result = call(fd, data, what == GO || count < 2 ? count : count / 2, at);
    int error = errno;
    if (what == TEAR) die('w', kind, full);
    off64_t offset = at >= 0 ? at : lseek64(fd, 0, SEEK_CUR) - (result < 0 ? 0 : result);
    note("write", kind, result < 0 ? -error : result, offset, full, "");
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

static ssize_t plain_write(int fd, const void *data, size_t count, off64_t at) {
    (void)at;
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, data, count);
}

static ssize_t placed_write(int fd, const void *data, size_t count, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return real(fd, data, count, at);
}

ssize_t write(int fd, const void *data, size_t count) { return on_write(plain_write, fd, data, count, -1); }
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { return on_write(placed_write, fd, data, count, at); }
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    return on_write(placed_write, fd, data, count, at);
}

// As many calls as there are pieces, until one comes short: what the kernel may do as well.
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!armed) return real(fd, pieces, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (!pieces[i].iov_len) continue;
        ssize_t done = write(fd, pieces[i].iov_base, pieces[i].iov_len);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < pieces[i].iov_len) break;
    }
    return total;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    ON_DESCRIPTOR('s', "sync", real(fd), fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    ON_DESCRIPTOR('s', "sync", real(fd), fd);
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    ON_DESCRIPTOR('t', "truncate", real(fd, size), fd);
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    ON_DESCRIPTOR('t', "truncate", real(fd, size), fd);
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    REAL(int, "open", const char *, int, ...);
    ON_PATH(flags & O_CREAT ? 'c' : 'o', flags & O_CREAT ? "create" : "open", real(path, flags, mode), AT_FDCWD, path, 0, NULL);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    REAL(int, "open64", const char *, int, ...);
    ON_PATH(flags & O_CREAT ? 'c' : 'o', flags & O_CREAT ? "create" : "open", real(path, flags, mode), AT_FDCWD, path, 0, NULL);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags)
    REAL(int, "openat", int, const char *, int, ...);
    ON_PATH(flags & O_CREAT ? 'c' : 'o', flags & O_CREAT ? "create" : "open", real(folder, path, flags, mode), folder, path, 0, NULL);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags)
    REAL(int, "openat64", int, const char *, int, ...);
    ON_PATH(flags & O_CREAT ? 'c' : 'o', flags & O_CREAT ? "create" : "open", real(folder, path, flags, mode), folder, path, 0, NULL);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    ON_PATH('r', "rename", real(from, to), AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int folder, const char *from, int other, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    ON_PATH('r', "rename", real(folder, from, other, to), folder, from, other, to);
}

int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    ON_PATH('r', "rename", real(folder, from, other, to, flags), folder, from, other, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    ON_PATH('u', "unlink", real(path), AT_FDCWD, path, 0, NULL);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    ON_PATH('u', "unlink", real(folder, path, flags), folder, path, 0, NULL);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    ON_PATH('m', "mkdir", real(path, mode), AT_FDCWD, path, 0, NULL);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    ON_PATH('m', "mkdir", real(folder, path, mode), folder, path, 0, NULL);
}

static void shift(clockid_t which, struct timespec *now) {
    int wall = plan.clock && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE);
    int steady = plan.monotonic && which == CLOCK_MONOTONIC;
    if (!wall && !steady) return;
    pthread_mutex_lock(&mutex);
    if (wall && !draw(4)) plan.day_offset = (int64_t)draw(60 * 86400 + 1) - 30 * 86400;
    if (steady && plan.ahead < 20 && !draw(64)) plan.ahead += 1;
    now->tv_sec += wall ? plan.day_offset : plan.ahead;
    pthread_mutex_unlock(&mutex);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(which, now);
    if (armed && !result) shift(which, now);
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
