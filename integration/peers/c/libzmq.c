/* libzmq as a peer: PUSH/PULL and REQ/REP with the loops in C and every option at its default (high-water mark 1000).
 * The command line and the lines on stdout are those of the package internal/child; the clock is read as its Meter does. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static void die(const char *what) {
    fprintf(stderr, "libzmq: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static void check(int rc, const char *what) {
    if (rc < 0) die(what);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *open_socket(void *ctx, int type, const char *addr) {
    void *s = zmq_socket(ctx, type);
    if (s == NULL) die("socket");
    if (strcmp(addr, "-") != 0) {
        check(zmq_connect(s, addr), "connect");
        return s;
    }
    char bound[256];
    size_t len = sizeof bound;
    check(zmq_bind(s, "tcp://127.0.0.1:*"), "bind");
    check(zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, bound, &len), "endpoint");
    printf("ready %s\n", bound);
    fflush(stdout);
    return s;
}

static void send_copy(void *s, const char *body, size_t size) {
    zmq_msg_t m;
    check(zmq_msg_init_size(&m, size), "message");
    memcpy(zmq_msg_data(&m), body, size);
    check(zmq_msg_send(&m, s, 0), "send");
}

static void receive(void *s, zmq_msg_t *m, size_t size) {
    check(zmq_msg_recv(m, s, 0), "receive");
    if (zmq_msg_size(m) != size) {
        fprintf(stderr, "libzmq: a message of %zu bytes arrived, %zu were sent\n", zmq_msg_size(m), size);
        exit(1);
    }
}

static void consume(void *s, size_t size, int64_t duration_ns) {
    int64_t stride = size < 65536 ? (int64_t)(65536 / size) : 1;
    int64_t messages = 0, elapsed = 0, start;
    zmq_msg_t m;
    zmq_msg_init(&m);
    receive(s, &m, size);
    start = now_ns();
    while (elapsed < duration_ns) {
        for (int64_t i = 0; i < stride; i++) receive(s, &m, size);
        messages += stride;
        elapsed = now_ns() - start;
    }
    printf("throughput %lld %lld\n", (long long)messages, (long long)elapsed);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void ping(void *s, const char *body, size_t size, int64_t duration_ns) {
    size_t n = 0, room = 1 << 16;
    int64_t *times = malloc(room * sizeof *times);
    zmq_msg_t m;
    zmq_msg_init(&m);
    int64_t start = now_ns(), before = start;
    while (before - start < duration_ns) {
        send_copy(s, body, size);
        receive(s, &m, size);
        int64_t after = now_ns();
        if (times != NULL && n == room) times = realloc(times, (room *= 2) * sizeof *times);
        if (times == NULL) {
            fprintf(stderr, "libzmq: no memory for the samples\n");
            exit(1);
        }
        times[n++] = after - before;
        before = after;
    }
    qsort(times, n, sizeof *times, by_value);
    printf("roundtrip %zu %lld %lld %lld\n", n, (long long)times[(n * 50 + 99) / 100 - 1],
           (long long)times[(n * 99 + 99) / 100 - 1], (long long)times[n - 1]);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "want ROLE ADDR SIZE MILLISECONDS DEADLINE\n");
        return 2;
    }
    const char *role = argv[1], *addr = argv[2];
    size_t size = strtoull(argv[3], NULL, 10);
    int64_t duration_ns = strtoll(argv[4], NULL, 10) * 1000000;
    unsigned deadline_s = strtoul(argv[5], NULL, 10);
    if (size == 0 || duration_ns <= 0 || deadline_s == 0) {
        fprintf(stderr, "SIZE, MILLISECONDS and DEADLINE: want numbers above zero\n");
        return 2;
    }
    alarm(deadline_s); /* its signal ends the process */

    char *body = calloc(1, size);
    void *ctx = zmq_ctx_new();
    if (body == NULL || ctx == NULL) die("start");
    if (strcmp(role, "consumer") == 0) {
        consume(open_socket(ctx, ZMQ_PULL, addr), size, duration_ns);
    } else if (strcmp(role, "producer") == 0) {
        void *s = open_socket(ctx, ZMQ_PUSH, addr);
        for (;;) send_copy(s, body, size);
    } else if (strcmp(role, "echo") == 0) {
        void *s = open_socket(ctx, ZMQ_REP, addr);
        zmq_msg_t m;
        zmq_msg_init(&m);
        for (;;) {
            receive(s, &m, size);
            check(zmq_msg_send(&m, s, 0), "send"); /* leaves m empty, ready for the next */
        }
    } else if (strcmp(role, "ping") == 0) {
        ping(open_socket(ctx, ZMQ_REQ, addr), body, size, duration_ns);
    } else {
        fprintf(stderr, "role %s is not one of this peer's\n", role);
        return 2;
    }
    fflush(stdout);
    _exit(0); /* not zmq_ctx_term: it would wait for what is still queued */
}
