/*
 * The floor: what it costs a C program to send one ready frame to each of those who have dialled, and nothing else.
 *
 *   floor PORT SIZE
 *
 * It answers every request with 101, and `go COUNT GAP` on stdin by sending COUNT frames to everybody, one round every
 * GAP microseconds (0: one after the other): "nanoseconds of the processor, deliveries".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX 20000

static uint64_t at(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int members[MAX], member_count;

static void receive(int fd) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    char buffer[65536];
    ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0 && !memcmp(buffer, "GET ", 4)) {
        if (member_count == MAX) exit(1);
        send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
        members[member_count++] = fd;
    } else if (got == 0 || (got < 0 && errno != EAGAIN)) {
        for (int i = 0; i < member_count; i++)
            if (members[i] == fd) members[i] = members[--member_count];
        close(fd);
    }
}

static void go(int rounds, uint64_t gap, size_t size) {
    uint64_t cpu = at(CLOCK_PROCESS_CPUTIME_ID), next = at(CLOCK_MONOTONIC), sent = 0;
    for (int i = 0; i < rounds; i++, next += gap * 1000) {
        for (uint64_t now; gap && (now = at(CLOCK_MONOTONIC)) < next;) {
            struct timespec rest = {0, (long)(next - now)};
            if (rest.tv_nsec > 999999999) rest.tv_nsec = 999999999;
            nanosleep(&rest, NULL);
        }
        char frame[65536 + 4];
        size_t head = size < 126 ? 2 : 4;
        memset(frame, ' ', sizeof frame);
        frame[0] = (char)0x81;
        if (size < 126) frame[1] = (char)size;
        else frame[1] = 126, frame[2] = (char)(size >> 8), frame[3] = (char)size;
        frame[head + (size_t)sprintf(frame + head, "{\"at\":%lu", at(CLOCK_MONOTONIC))] = ' ';
        frame[head + size - 1] = '}';
        for (int m = 0; m < member_count; m++)
            sent += send(members[m], frame, head + size, MSG_NOSIGNAL) == (ssize_t)(head + size);
    }
    printf("%lu %lu\n", at(CLOCK_PROCESS_CPUTIME_ID) - cpu, sent);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("floor");
        return 1;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    printf("ready\n");
    for (;;) {
        int found = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int peer = accept(listener, NULL, NULL);
                if (peer < 0) continue;
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = peer;
                epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
            } else if (fd == 0) {
                char line[256];
                int rounds;
                unsigned long gap;
                if (!fgets(line, sizeof line, stdin) || sscanf(line, "go %d %lu", &rounds, &gap) != 2) return 0;
                go(rounds, gap, (size_t)atoi(argv[2]));
            } else
                receive(fd);
        }
    }
}
