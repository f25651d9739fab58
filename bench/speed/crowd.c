/*
 * A crowd of WebSocket clients that costs next to nothing: one thread, one epoll.
 *
 *   crowd HOST PORT COUNT [--path PATH] [--header LINE] [--step UNTIL SAY]… [--answer HEARD SAY] [--mark TEXT]
 *         [--window N] [--rooms N] [--since POSITION] [--return] [--echoed TEXT] [--in-order]
 *
 * Each client dials, upgrades, and goes through the steps: when a message has come that contains UNTIL (empty: at
 * once), it says SAY (empty: nothing). Behind the last step it is in. In PATH, SAY and HEADER, %d is the client's number,
 * %r that of its room, and %p `,"since":"POSITION"`, once it has one. Whoever hears what begins with HEARD answers it.
 * Messages that contain MARK are deliveries; digits behind it are the time of CLOCK_MONOTONIC, in nanoseconds, when they
 * were published. Those of holdfast have an id, its position: what is missing between two of them, or comes again, is
 * counted; what has the position of another is as good as missing. With --in-order each is to be published later than
 * the one before: else it is one that has come already. With --return, whoever is lost comes back as PROTOCOL.md says:
 * after `goodbye` or `Retry-After`, or with jitter, and waits 10 s to be let in.
 *
 * Commands on stdin, each answered with a line on stdout:
 *   open         dial, no more than the window at once, until all are in: "in turned-away seconds"
 *   stat         since it was asked last: "deliveries messages bytes lost missing repeated least most p50 p99 max", with the
 *                deliveries of who had least and of who had most; times in microseconds
 *   await N S    wait until there were N deliveries since `stat`, but no longer than S seconds: "deliveries"
 *   echo N S TEXT  each says TEXT and waits for a message that contains what is to be echoed, N times, but no longer than S
 *                seconds: "answers seconds". In both, %n is the number of what the client says; an answer with another
 *                number is a repeated one.
 *   return S     wait until all are in again and have heard what others of their room have, but no longer than S seconds:
 *                "in behind missing repeated resyncs sent-away unanswered refused p50 p95 longest late waited", since the beginning
 *                (missing and repeated: since `stat`). They are consistent again when they have all that their room had
 *                when they came in: half, 95 % and all of them so long after they were lost. Of what is new to those 99 %
 *                is not later than `late`, and `waited` is the longest that a server left somebody without an answer who
 *                dialed; in milliseconds. "nan" where there was none.
 *   heads        the last publication of each room that anybody has heard: its offsets
 *   close        "closed"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS 8
#define MAX_ROOMS 20000
#define READ_BYTES (1 << 20)
#define BUCKETS 4096
#define KNOWN 256 /* of the last publications of each room */
#define GREETING_SECONDS 10

enum state { NEW, DIALING, UPGRADING, STEPPING, IN, GONE };

struct client {
    int fd, number, step, echoes, said, attempts;
    enum state state;
    char epoch[24];
    uint64_t offset;                 /* of the last publication; 0: it has no position */
    uint64_t deliveries;             /* since `stat` */
    uint64_t wanted;                 /* the last of its room, when it came in again */
    uint64_t lost_at, in_at, due;    /* nanoseconds; 0: it is consistent (again), it is not in, it does not come back */
    uint64_t began_at, dialed_at;    /* … of the latter, 0: it has been answered */
    uint64_t when;                   /* the last one was published */
    double after, spread;            /* seconds, that a goodbye has advised; less than 0: none has */
    char *rest; /* what has come of a frame that is not whole */
    size_t length;
};

static struct { const char *until, *say; } steps[MAX_STEPS];
static int step_count;
static const char *path = "/", *header, *heard, *answer, *mark = "\"at\":", *since, *echo_text, *echoed = "";
static size_t echo_head; /* the length of what is in each echo */
static const double CEILINGS[] = {1, 2, 4, 8, 16, 30};
static int rooms = 1, returns, is_open, in_order;
static uint64_t missing, repeated, resyncs, sent_away, unanswered, refused, waited;
static uint64_t heads[MAX_ROOMS]; /* the last publication of a room that anybody has heard */
static struct { uint64_t offset, when; } *known; /* when what stands there was published */
static int count, window = 50, epoll_fd, started, dialing, in, turned_away, echoing;
static struct client *clients;
static struct sockaddr_storage address;
static socklen_t address_length;
static char *host, *port;
static uint64_t deliveries, messages, bytes, lost;
static uint64_t echoes_left, echoes_lost; /* answers that are not there, and of those they that do not come any more */
static uint64_t buckets[BUCKETS];
static uint64_t away[BUCKETS], back[BUCKETS]; /* how long they were, and how late is what comes to those who are */
static uint32_t slowest;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* 64 buckets for each power of two: within 1.6 %. */
static int bucket_of(uint64_t us) {
    if (us < 64) return (int)us;
    int shift = 63 - __builtin_clzll(us) - 6;
    int bucket = (shift + 1) * 64 + (int)((us >> shift) - 64);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double us_of(int bucket) {
    if (bucket < 64) return bucket;
    int shift = bucket / 64 - 1;
    return (double)((uint64_t)(bucket % 64 + 64) << shift);
}

static double percentile(const uint64_t *of, double share) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) all += of[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += of[i]) && (double)seen >= share * (double)all) return us_of(i);
    return (double)NAN;
}

static int room_of(const struct client *c) {
    return c->number % rooms;
}

static void fill(char *out, size_t size, const char *template, const struct client *c) {
    size_t length = 0;
    for (; *template && length + 80 < size; template++)
        if (template[0] == '%' && strchr("drnp", template[1])) {
            char which = *++template;
            if (which == 'd') length += (size_t)sprintf(out + length, "%d", c->number);
            if (which == 'n') length += (size_t)sprintf(out + length, "%d", c->said);
            if (which == 'r') length += (size_t)sprintf(out + length, "%d", room_of(c));
            if (which == 'p' && c->offset) length += (size_t)sprintf(out + length, ",\"since\":\"%s:%lu\"", c->epoch, c->offset);
        } else
            out[length++] = *template;
    out[length] = 0;
}

static uint64_t *head_of(const struct client *c) {
    return &heads[room_of(c)];
}

static void catch_up(struct client *c) {
    if (c->state != IN || !c->lost_at || c->offset < c->wanted) return;
    away[bucket_of((now_ns() - c->lost_at) / 1000)]++;
    c->lost_at = 0;
}

/* How many are not in, or have not heard what others of their room have. */
static int behind(void) {
    int found = count - in;
    for (int i = 0; i < count; i++) found += clients[i].state == IN && clients[i].offset < *head_of(&clients[i]);
    return found;
}

static void hear(struct client *c) {
    if (!c->dialed_at) return;
    uint64_t since = now_ns() - c->dialed_at;
    if (since > waited) waited = since;
    c->dialed_at = 0;
}

static void lose(struct client *c) {
    if (c->state == GONE || c->state == NEW) return;
    if (c->state != IN && c->after >= 0) sent_away++;
    else if (c->state == UPGRADING && c->dialed_at) unanswered++;
    else if (c->state == UPGRADING || c->state == STEPPING) refused++;
    if (c->state == IN) {
        in--;
        lost++;
    } else {
        dialing--;
        turned_away++;
    }
    if (returns) {
        int last = (int)(sizeof CEILINGS / sizeof *CEILINGS) - 1, attempt = c->attempts++;
        double dice = drand48(), wait = CEILINGS[attempt < last ? attempt : last] * dice;
        if (c->after >= 0) wait = c->after + c->spread * dice;
        if (wait < 0.25) wait = 0.25;
        if (!c->lost_at) c->lost_at = now_ns();
        c->due = now_ns() + (uint64_t)(wait * 1e9);
        c->in_at = 0;
    }
    echoes_lost += (uint64_t)c->echoes;
    c->echoes = 0;
    c->state = GONE;
    close(c->fd);
    free(c->rest);
    c->rest = NULL;
    c->length = 0;
}

static void transmit(struct client *c, const void *data, size_t size) {
    if (send(c->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) lose(c);
}

static void frame(struct client *c, int opcode, const char *text, size_t size) {
    unsigned char out[8192];
    size_t at = 0;
    if (size > sizeof out - 8) die("what is said is too long");
    out[at++] = (unsigned char)(0x80 | opcode);
    if (size < 126)
        out[at++] = (unsigned char)(0x80 | size);
    else {
        out[at++] = 0x80 | 126;
        out[at++] = (unsigned char)(size >> 8);
        out[at++] = (unsigned char)size;
    }
    memset(out + at, 0, 4); /* the mask */
    memcpy(out + at + 4, text, size);
    transmit(c, out, at + 4 + size);
}

static void say(struct client *c, const char *template) {
    char text[4096];
    fill(text, sizeof text, template, c);
    frame(c, 1, text, strlen(text));
}

static void go_on(struct client *c, const char *text, size_t size) {
    while (c->state == STEPPING) {
        if (c->step == step_count) {
            c->state = IN;
            c->in_at = now_ns();
            c->attempts = 0;
            c->wanted = *head_of(c);
            catch_up(c);
            dialing--;
            in++;
            return;
        }
        const char *until = steps[c->step].until;
        if (*until && (text == NULL || memmem(text, size, until, strlen(until)) == NULL)) return;
        text = NULL;
        const char *word = steps[c->step++].say;
        if (*word) say(c, word);
    }
}

static double number_behind(const char *text, size_t size, const char *name) {
    const char *at = memmem(text, size, name, strlen(name));
    return at ? atof(at + strlen(name)) / 1000 : 0;
}

static void be_at(struct client *c, const char *position, uint64_t offset) {
    size_t length = strcspn(position, ":");
    if (length >= sizeof c->epoch) die("an epoch is too long");
    memcpy(c->epoch, position, length);
    c->epoch[length] = 0;
    c->offset = offset;
}

/* Take in a position, of a publication or of an answer to a join, and what is between it and the one before. */
static void stand(struct client *c, const char *text, size_t size, const char *name, int is_event, uint64_t when) {
    const char *at = memmem(text, size, name, strlen(name));
    const char *colon = at ? memchr(at += strlen(name), ':', sizeof c->epoch) : NULL;
    if (!colon) return;
    uint64_t offset = strtoull(colon + 1, NULL, 10);
    if (is_event && c->offset && (strncmp(c->epoch, at, (size_t)(colon - at)) || c->epoch[colon - at])) missing++;
    if (when) {
        int place = room_of(c) * KNOWN + (int)(offset % KNOWN);
        if (known[place].offset == offset && known[place].when != when) missing++; /* what stood there before */
        known[place].offset = offset;
        known[place].when = when;
    }
    if (is_event && offset <= c->offset) {
        repeated++;
        return;
    }
    if (is_event && c->offset && offset > c->offset + 1) missing += offset - c->offset - 1;
    if (!is_event && c->offset) {
        if (memmem(text, size, "\"recovered\":false", 17)) resyncs++;
        else if (offset > c->offset) missing += offset - c->offset; /* it is to go on where it stood … */
        else repeated += c->offset - offset;                        /* … and not before */
    }
    be_at(c, at, offset);
    if (offset > *head_of(c)) *head_of(c) = offset;
    catch_up(c);
}

static void ask_for_echo(struct client *c) {
    c->said++;
    say(c, echo_text);
}

static void take_echo(struct client *c, const char *text, size_t size) {
    char wanted[1024];
    fill(wanted, sizeof wanted, echoed, c);
    if (c->echoes && memmem(text, size, wanted, strlen(wanted))) {
        echoes_left--;
        if (--c->echoes) ask_for_echo(c);
    } else if (memmem(text, size, echoed, echo_head))
        repeated++;
}

static void take_message(struct client *c, const char *text, size_t size) {
    messages++;
    if (returns && memmem(text, size, "\"type\":\"goodbye\"", 16)) {
        c->after = number_behind(text, size, "\"after_ms\":");
        c->spread = number_behind(text, size, "\"spread_ms\":");
    }
    if (c->state == STEPPING && memmem(text, size, "\"type\":\"joined\"", 15)) stand(c, text, size, "\"cursor\":\"", 0, 0);
    if (heard && size >= strlen(heard) && !memcmp(text, heard, strlen(heard))) {
        say(c, answer);
        return;
    }
    if (c->state == STEPPING) {
        go_on(c, text, size);
        return;
    }
    const char *at = memmem(text, size, mark, strlen(mark));
    if (at) {
        uint64_t when = 0;
        for (at += strlen(mark); at < text + size && *at >= '0' && *at <= '9'; at++) when = 10 * when + (uint64_t)(*at - '0');
        deliveries++;
        c->deliveries++;
        if (in_order && when <= c->when) repeated++;
        c->when = when;
        if (when) {
            uint64_t us = (now_ns() - when) / 1000;
            buckets[bucket_of(us)]++;
            if (us > slowest) slowest = (uint32_t)us;
            if (c->in_at && when > c->in_at) back[bucket_of(us)]++;
        }
        stand(c, text, size, "\"id\":\"", 1, when);
    } else if (echo_text)
        take_echo(c, text, size);
}

static size_t take_frames(struct client *c, char *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2 && c->state != GONE) {
        unsigned char *f = (unsigned char *)data + at;
        size_t head = 2, length = f[1] & 127;
        if (length == 126) {
            if (size - at < 4) break;
            length = (size_t)f[2] << 8 | f[3];
            head = 4;
        } else if (length == 127) {
            if (size - at < 10) break;
            length = 0;
            for (int i = 2; i < 10; i++) length = length << 8 | f[i];
            head = 10;
        }
        if (size - at < head + length) break;
        int opcode = f[0] & 15;
        if (!(f[0] & 128)) die("a message in parts is not understood");
        if (opcode == 1 || opcode == 2)
            take_message(c, data + at + head, length);
        else if (opcode == 9)
            frame(c, 10, data + at + head, length);
        else if (opcode == 8)
            lose(c);
        at += head + length;
    }
    return at;
}

static void take(struct client *c) {
    static char buffer[READ_BYTES + 65536];
    for (;;) {
        if (c->length) memcpy(buffer, c->rest, c->length);
        ssize_t got = recv(c->fd, buffer + c->length, READ_BYTES, 0);
        if (got <= 0) {
            if (got < 0 && errno == EAGAIN) return;
            lose(c);
            return;
        }
        bytes += (uint64_t)got;
        hear(c);
        size_t size = c->length + (size_t)got, at = 0;
        if (c->state == UPGRADING) {
            char *end = memmem(buffer, size, "\r\n\r\n", 4);
            if (end == NULL && size < 16384) {
                c->rest = realloc(c->rest, size);
                memcpy(c->rest, buffer, c->length = size);
                continue;
            }
            if (end == NULL || memcmp(buffer, "HTTP/1.1 101", 12) != 0) {
                const char *later = end ? memmem(buffer, size, "\r\nretry-after: ", 15) : NULL;
                if (later) c->after = c->spread = atof(later + 15); /* a proxy says the same to all */
                lose(c);
                return;
            }
            at = (size_t)(end + 4 - buffer);
            c->state = STEPPING;
            go_on(c, NULL, 0);
        }
        at += take_frames(c, buffer + at, size - at);
        if (c->state == GONE) return;
        c->length = size - at;
        if (c->length > 65536) die("a message is too long");
        if (c->length) {
            c->rest = realloc(c->rest, c->length);
            memcpy(c->rest, buffer + at, c->length);
        } else {
            free(c->rest);
            c->rest = NULL;
        }
        if (got < READ_BYTES) return;
    }
}

static void upgrade(struct client *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lose(c);
        return;
    }
    char target[2048], line[2048] = "", request[8192];
    fill(target, sizeof target, path, c);
    if (header) fill(line, sizeof line, header, c);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s\r\n",
                          target, host, port, line, *line ? "\r\n" : "");
    c->state = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    transmit(c, request, (size_t)length);
}

static void dial_some(int at_once) {
    while (started < count && dialing < at_once) {
        struct client *c = &clients[started++];
        int comes = c->state == DIALING || c->state == UPGRADING || c->state == STEPPING;
        if (returns && comes && now_ns() > c->began_at + GREETING_SECONDS * 1000000000ull) lose(c);
        if ((c->state != NEW && c->state != GONE) || (c->due && c->due > now_ns())) continue;
        c->number = (int)(c - clients);
        c->step = 0;
        c->due = 0;
        c->after = -1;
        c->began_at = c->dialed_at = now_ns();
        c->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (c->fd < 0) die("socket");
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->state = DIALING;
        dialing++;
        if (connect(c->fd, (struct sockaddr *)&address, address_length) < 0 && errno != EINPROGRESS) {
            lose(c);
            continue;
        }
        struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    }
}

/* Do what there is to do for so many milliseconds (-1: until something is), and return whether a command has come. */
static int turn(int wait) {
    struct epoll_event events[512];
    if (returns && is_open && in < count) started = 0, dial_some(count);
    int is_asked = 0, found = epoll_wait(epoll_fd, events, 512, wait);
    for (int i = 0; i < found; i++) {
        struct client *c = events[i].data.ptr;
        if (c == NULL)
            is_asked = 1;
        else if (c->state == DIALING)
            upgrade(c);
        else if (c->state != GONE)
            take(c);
    }
    return is_asked;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "crowd HOST PORT COUNT …\n");
        return 2;
    }
    host = argv[1], port = argv[2], count = atoi(argv[3]);
    for (int i = 4; i < argc; i++) {
        if (!strcmp(argv[i], "--path")) path = argv[++i];
        else if (!strcmp(argv[i], "--header")) header = argv[++i];
        else if (!strcmp(argv[i], "--mark")) mark = argv[++i];
        else if (!strcmp(argv[i], "--window")) window = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rooms") && atoi(argv[i + 1]) <= MAX_ROOMS) rooms = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--in-order")) in_order = 1;
        else if (!strcmp(argv[i], "--since")) since = argv[++i];
        else if (!strcmp(argv[i], "--return")) returns = 1;
        else if (!strcmp(argv[i], "--echoed")) echoed = argv[++i];
        else if (!strcmp(argv[i], "--answer")) heard = argv[++i], answer = argv[++i];
        else if (!strcmp(argv[i], "--step") && step_count < MAX_STEPS) {
            steps[step_count].until = argv[++i];
            steps[step_count++].say = argv[++i];
        } else {
            fprintf(stderr, "what is %s?\n", argv[i]);
            return 2;
        }
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found)) die("getaddrinfo");
    memcpy(&address, found->ai_addr, address_length = found->ai_addrlen);
    clients = calloc((size_t)count, sizeof *clients);
    known = calloc((size_t)rooms * KNOWN, sizeof *known);
    const char *number = strstr(echoed, "%n"), *colon = since ? strchr(since, ':') : NULL;
    echo_head = number ? (size_t)(number - echoed) : strlen(echoed);
    for (int i = 0; colon && i < count; i++) be_at(&clients[i], since, strtoull(colon + 1, NULL, 10));
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    char line[4096];
    for (;;) {
        if (!turn(returns ? 50 : -1)) continue;
        if (fgets(line, sizeof line, stdin) == NULL) return 0;
        line[strcspn(line, "\n")] = 0;
        uint64_t began = now_ns();
        if (!strcmp(line, "open")) {
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL); /* the next command can wait */
            started = dialing = in = turned_away = is_open = 0;
            for (int i = 0; i < count; i++) clients[i].state = NEW;
            while (in < count && now_ns() - began < 60000000000u) {
                dial_some(window);
                turn(10);
                if (!dialing && started == count) started = 0; /* who was turned away comes again */
            }
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
            is_open = 1; /* from now on, who is lost comes back */
            printf("%d %d %.6f\n", in, turned_away, (double)(now_ns() - began) / 1e9);
        } else if (!strcmp(line, "stat")) {
            uint64_t least = UINT64_MAX, most = 0;
            for (int i = 0; i < count; i++) {
                if (clients[i].deliveries < least) least = clients[i].deliveries;
                if (clients[i].deliveries > most) most = clients[i].deliveries;
                clients[i].deliveries = 0;
            }
            printf("%lu %lu %lu %lu %lu %lu %lu %lu %.0f %.0f %u\n", deliveries, messages, bytes, lost, missing, repeated, least, most,
                   percentile(buckets, 0.5), percentile(buckets, 0.99), slowest);
            deliveries = messages = bytes = lost = missing = repeated = slowest = 0;
            memset(buckets, 0, sizeof buckets);
        } else if (!strncmp(line, "await ", 6)) {
            uint64_t wanted = strtoull(line + 6, NULL, 10);
            double seconds = atof(strrchr(line, ' '));
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
            while (deliveries < wanted && (double)(now_ns() - began) < seconds * 1e9) turn(0);
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
            printf("%lu\n", deliveries);
        } else if (!strncmp(line, "echo ", 5)) {
            char *text;
            int each = (int)strtol(line + 5, &text, 10);
            double seconds = strtod(text, &text);
            echo_text = text + 1;
            echoes_left = echoes_lost = 0;
            for (int i = 0; i < count; i++)
                if (clients[i].state == IN) echoes_left += (uint64_t)(clients[i].echoes = each);
            echoing = (int)echoes_left;
            for (int i = 0; i < count; i++)
                if (clients[i].state == IN) ask_for_echo(&clients[i]);
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
            while (echoes_left > echoes_lost && (double)(now_ns() - began) < seconds * 1e9) turn(0);
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
            printf("%lu %.6f\n", (uint64_t)echoing - echoes_left, (double)(now_ns() - began) / 1e9);
        } else if (!strncmp(line, "return ", 7)) {
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
            while (behind() && (double)(now_ns() - began) < atof(line + 7) * 1e9) turn(10);
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
            printf("%d %d %lu %lu %lu %lu %lu %lu %.0f %.0f %.0f %.0f %.0f\n", in, behind(), missing, repeated, resyncs, sent_away,
                   unanswered, refused, percentile(away, 0.5) / 1000, percentile(away, 0.95) / 1000, percentile(away, 1) / 1000,
                   percentile(back, 0.99) / 1000, (double)waited / 1e6);
        } else if (!strcmp(line, "heads")) {
            for (int i = 0; i < rooms; i++) printf("%lu%c", heads[i], i + 1 < rooms ? ' ' : '\n');
        } else if (!strcmp(line, "close")) {
            returns = 0;
            for (int i = 0; i < count; i++)
                if (clients[i].state != GONE && clients[i].state != NEW) {
                    frame(&clients[i], 8, "\x03\xe8", 2);
                    lose(&clients[i]);
                }
            printf("closed\n");
        } else
            printf("what is %s?\n", line);
    }
}
