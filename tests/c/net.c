/* net ADDRESS...: a network of its own, in which this machine has these IPv4 addresses besides 127.0.0.0/8, and nobody else is.
 * Prints a line when it is there, and keeps it until it is killed. Others join by /proc/PID/ns/net. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(125);
    }
}

/* Sets an address or a mask of an interface. */
static void set(int socket, unsigned long what, const char *name, const char *text) {
    struct ifreq request = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", text);
        exit(125);
    }
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    memcpy(&request.ifr_addr, &address, sizeof address);
    check(ioctl(socket, what, &request), text);
}

int main(int argc, char **argv) {
    check(unshare(CLONE_NEWNET), "unshare");
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    check(any, "socket");
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    check(ioctl(any, SIOCSIFFLAGS, &up), "SIOCSIFFLAGS");
    for (int at = 1; at < argc; at++) {
        char name[IFNAMSIZ];
        snprintf(name, sizeof name, "lo:%d", at);
        set(any, SIOCSIFADDR, name, argv[at]);
        set(any, SIOCSIFNETMASK, name, "255.255.255.255");
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        pause();
    }
}
