/* killat N REPORT COMMAND ARGS...: runs the command, and kills it with SIGKILL in place of the N-th call, over all its
 * threads, that changes something in a file system. With N = 0, or beyond the last call, the command ends by itself.
 *
 * REPORT is a file that is written at the end: "killed at N CALL PATH", or "survived COUNT" with how many calls there were.
 * The exit status is the command's, 137 when it was killed, 125 when this program failed.
 *
 * A seccomp filter has the calls in question stop, and no others, so that the command is hardly slowed down. The calls
 * that write to a descriptor count when it is a regular file or a directory; sockets, pipes and terminals do not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* <sys/ptrace.h> and <linux/ptrace.h> do not go together. */
extern long ptrace(int request, ...);
#define SEIZE_OPTIONS                                                                                        \
    (PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACESECCOMP)

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "killat knows x86-64 and aarch64 Linux only"
#endif

/* When a call counts. */
enum when {
    ALWAYS,
    /* The argument with flags creates or cuts a file. */
    CREATES_1,
    CREATES_2,
    /* The argument is a descriptor of a file or a directory. */
    FILE_0,
    FILE_2,
    /* FILE_0, and the second argument asks for shared blocks. */
    CLONES,
};

static const struct {
    unsigned nr;
    const char *name;
    enum when when;
} CALLS[] = {
#define CALL(name, when) {SYS_##name, #name, when}
    CALL(openat, CREATES_2),
    CALL(openat2, ALWAYS),
    CALL(write, FILE_0),
    CALL(writev, FILE_0),
    CALL(pwrite64, FILE_0),
    CALL(pwritev, FILE_0),
    CALL(pwritev2, FILE_0),
    CALL(sendfile, FILE_0),
    CALL(splice, FILE_2),
    CALL(copy_file_range, FILE_2),
    CALL(ioctl, CLONES),
    CALL(fsync, FILE_0),
    CALL(fdatasync, FILE_0),
    CALL(sync_file_range, FILE_0),
    CALL(syncfs, FILE_0),
    CALL(ftruncate, FILE_0),
    CALL(truncate, ALWAYS),
    CALL(fallocate, FILE_0),
    CALL(renameat2, ALWAYS),
    CALL(unlinkat, ALWAYS),
    CALL(mkdirat, ALWAYS),
    CALL(mknodat, ALWAYS),
    CALL(linkat, ALWAYS),
    CALL(symlinkat, ALWAYS),
    CALL(fchmod, FILE_0),
    CALL(fchmodat, ALWAYS),
    CALL(fchown, FILE_0),
    CALL(fchownat, ALWAYS),
    CALL(utimensat, ALWAYS),
#ifdef SYS_renameat
    CALL(renameat, ALWAYS),
#endif
#ifdef SYS_fchmodat2
    CALL(fchmodat2, ALWAYS),
#endif
/* Newer architectures have only the calls above. */
#ifdef SYS_open
    CALL(open, CREATES_1),
    CALL(creat, ALWAYS),
    CALL(rename, ALWAYS),
    CALL(unlink, ALWAYS),
    CALL(mkdir, ALWAYS),
    CALL(rmdir, ALWAYS),
    CALL(mknod, ALWAYS),
    CALL(link, ALWAYS),
    CALL(symlink, ALWAYS),
    CALL(chmod, ALWAYS),
    CALL(chown, ALWAYS),
    CALL(lchown, ALWAYS),
    CALL(utime, ALWAYS),
    CALL(utimes, ALWAYS),
    CALL(futimesat, ALWAYS),
#endif
};
#define CALL_COUNT (sizeof CALLS / sizeof *CALLS)

static void fail(const char *what) {
    fprintf(stderr, "killat: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* Has the calls above stop. */
static void filter_calls(void) {
    struct sock_filter code[2 * CALL_COUNT + 5];
    size_t length = 0;
#define STEP(...) code[length++] = (struct sock_filter)__VA_ARGS__
    STEP(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    STEP(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0));
    STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    STEP(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    for (size_t i = 0; i < CALL_COUNT; i++) {
        STEP(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].nr, 0, 1));
        STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
    }
    STEP(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = {(unsigned short)length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail("cannot filter system calls");
}

/* Starts the command, which waits for a byte before it begins. Its end of a pipe is told in `go`. */
static pid_t start(char **command, int *go) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) fail("cannot make a pipe");
    pid_t child = fork();
    if (child < 0) fail("cannot fork");
    if (child > 0) {
        close(ends[0]);
        *go = ends[1];
        return child;
    }
    char byte;
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1) _exit(125);
    filter_calls();
    execvp(command[0], command);
    fail(command[0]);
    return 0;
}

/* Whether a descriptor of the thread is one of a file or a directory; tells its path. */
static int is_file(pid_t thread, unsigned long long fd, char path[PATH_MAX]) {
    char link[64];
    struct stat found;
    snprintf(link, sizeof link, "/proc/%d/fd/%d", thread, (int)fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return stat(link, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
}

/* Whether the call that the thread stands at counts. */
static int counts(pid_t thread, const char **name, char path[PATH_MAX]) {
    struct ptrace_syscall_info info;
    path[0] = 0;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) < 0) return 0;
    if (info.op != PTRACE_SYSCALL_INFO_SECCOMP) return 0;
    const __u64 *args = info.seccomp.args;
    const unsigned creating = O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    for (size_t i = 0; i < CALL_COUNT; i++) {
        if (CALLS[i].nr != info.seccomp.nr) continue;
        *name = CALLS[i].name;
        switch (CALLS[i].when) {
        case ALWAYS: return 1;
        case CREATES_1: return (args[1] & creating) != 0;
        case CREATES_2: return (args[2] & creating) != 0;
        case FILE_0: return is_file(thread, args[0], path);
        case FILE_2: return is_file(thread, args[2], path);
        case CLONES: return ((unsigned)args[1] == FICLONE || (unsigned)args[1] == FICLONERANGE) &&
                            is_file(thread, args[0], path);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: killat N REPORT COMMAND ARGS...\n");
        return 125;
    }
    unsigned long kill_at = strtoul(argv[1], NULL, 10), count = 0;
    FILE *report = fopen(argv[2], "we");
    if (!report) fail(argv[2]);
    int go, status, is_killed = 0;
    pid_t child = start(argv + 3, &go);
    if (ptrace(PTRACE_SEIZE, child, 0, SEIZE_OPTIONS)) fail("cannot trace (is CAP_SYS_PTRACE, or seccomp, refused?)");
    if (write(go, "", 1) != 1) fail("cannot start the command");
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) fail("cannot wait");
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == child) break;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP && !is_killed) {
            const char *name = "";
            char path[PATH_MAX];
            if (counts(thread, &name, path) && ++count == kill_at) {
                is_killed = 1;
                fprintf(report, "killed at %lu %s %s\n", count, name, path);
                kill(child, SIGKILL);
                continue;
            }
        }
        if (event == PTRACE_EVENT_STOP && (signal == SIGSTOP || signal == SIGTSTP)) {
            ptrace(PTRACE_LISTEN, thread, 0, 0);
            continue;
        }
        /* A stop with an event is ours; any other is a signal that is passed on. It may have been killed meanwhile. */
        ptrace(PTRACE_CONT, thread, 0, event ? 0 : signal);
    }
    if (!is_killed) fprintf(report, "survived %lu\n", count);
    if (fclose(report)) fail(argv[2]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
