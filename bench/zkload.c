/* A load generator for the ZooKeeper protocol: one thread, epoll, no libraries, closed loop.
 *
 *   cc -O2 -o zkload zkload.c
 *   zkload [options] HOST:PORT...
 *
 * Each connection is a session that keeps `window` requests outstanding.  Connections are dealt to the
 * addresses in turn.  Run in order: connect all; create the nodes that the operation needs; run the
 * operation for warm-up + seconds, or until `count` requests are answered, or until SIGTERM; close the
 * sessions.  Prints one line of JSON.  Latencies run from the building of a request to the reading of its reply.
 *
 * Operations: setData, getData (each connection on a node of its own, or one of `nodes` by chance), mixed
 * (80 % getData), create (new persistent nodes, one parent per connection), tree (`parents` parents with
 * `children` children each; needs no count).
 *
 * Exit code: 0 when the run took place, whatever errors it counted; 1 when it could not; 2 for bad usage.
 * The protocol is that of ZooKeeper 3.8: zookeeper.jute, frames of a 4-byte length and big-endian fields.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OP_CREATE = 1, OP_GET_DATA = 4, OP_SET_DATA = 5, OP_PING = 11, OP_CLOSE = -11 };
enum { XID_WATCH = -1, XID_PING = -2 };
enum { ERROR_NODE_EXISTS = -110 };
enum { SESSION_TIMEOUT_MS = 30000, PING_AFTER_MS = 5000, SETUP_WINDOW = 64, STALL_SECONDS = 60 };

typedef enum { SET_DATA, GET_DATA, MIXED, CREATE, TREE } operation;
static const char *operation_names[] = {"setData", "getData", "mixed", "create", "tree"};

/* --- what was asked for --- */

static operation op = SET_DATA;
static int connections = 1, window = 1, value_size = 100, nodes = 0, parents = 1000, children = 1000;
static double seconds = 5, warmup_seconds = 0;
static long count = 0; /* 0: run for `seconds` */
static const char *prefix = "/zkload";

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("zkload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *checked(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

/* --- histogram: 64 steps to each doubling, so a quantile is at most 1.6 % too high --- */

enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS };
static uint64_t histogram[64 * STEPS];
static uint64_t histogram_count;
static int64_t histogram_max;

static void record(int64_t value_ns) {
    uint64_t v = value_ns > 0 ? (uint64_t)value_ns : 0;
    int shift = 0;
    while ((v >> shift) >= 2 * STEPS) shift++;
    histogram[shift * STEPS + (v >> shift)]++;
    histogram_count++;
    if (value_ns > histogram_max) histogram_max = value_ns;
}

static double quantile_us(double q) {
    uint64_t wanted = (uint64_t)(q * (double)histogram_count), seen = 0;
    for (int i = 0; i < 64 * STEPS; i++) {
        seen += histogram[i];
        if (seen > wanted) {
            int shift = i < 2 * STEPS ? 0 : i / STEPS - 1;
            double upper = (double)((uint64_t)(i - shift * STEPS + 1) << shift);
            return (upper < (double)histogram_max ? upper : (double)histogram_max) / 1000.0;
        }
    }
    return (double)histogram_max / 1000.0;
}

/* --- errors by code --- */

enum { ERROR_CODES = 32 };
static struct { int code; long count; } errors[ERROR_CODES];
static long disconnects, unanswered;

static void count_error(int code) {
    for (int i = 0; i < ERROR_CODES; i++) {
        if (errors[i].count == 0) errors[i].code = code;
        if (errors[i].code == code) {
            errors[i].count++;
            return;
        }
    }
    die("more than %d different error codes", ERROR_CODES);
}

/* --- connections --- */

typedef struct {
    char *data;
    size_t start, end, size;
} buffer;

typedef struct {
    int index, fd, closed, established, closing;
    uint32_t events;
    int32_t next_xid;
    int64_t last_sent_ns;
    int outstanding, oldest; /* of the ring `sent` */
    struct { int64_t at_ns; int32_t xid; } *sent;
    long created;
    buffer in, out;
} connection;

static connection *all;
static int poller, open_connections, established_connections, ring_size;

static void reserve(buffer *b, size_t more) {
    if (b->start == b->end) b->start = b->end = 0;
    if (b->end + more <= b->size) return;
    memmove(b->data, b->data + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
    if (b->end + more <= b->size) return;
    while (b->size < b->end + more) b->size = b->size ? b->size * 2 : 4096;
    b->data = checked(realloc(b->data, b->size));
}

static void put(buffer *b, const void *bytes, size_t size) {
    reserve(b, size);
    memcpy(b->data + b->end, bytes, size);
    b->end += size;
}

static void put_int(buffer *b, int32_t value) {
    uint32_t big = htonl((uint32_t)value);
    put(b, &big, 4);
}

static void put_long(buffer *b, int64_t value) {
    put_int(b, (int32_t)(value >> 32));
    put_int(b, (int32_t)value);
}

static void put_string(buffer *b, const char *text) {
    int32_t size = (int32_t)strlen(text);
    put_int(b, size);
    put(b, text, (size_t)size);
}

static int32_t get_int(const char *bytes) {
    uint32_t big;
    memcpy(&big, bytes, 4);
    return (int32_t)ntohl(big);
}

static void disconnect(connection *c, const char *why) {
    if (c->closed) return;
    if (!c->closing) {
        fprintf(stderr, "zkload: connection %d: %s, %d requests unanswered\n", c->index, why, c->outstanding);
        disconnects++;
        unanswered += c->outstanding;
    }
    close(c->fd);
    c->closed = 1;
    open_connections--;
}

static void watch_for(connection *c, uint32_t events) {
    if (c->events == events) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    c->events = events;
}

static void flush_out(connection *c) {
    while (!c->closed && c->out.start < c->out.end) {
        ssize_t n = send(c->fd, c->out.data + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n < 0) {
            disconnect(c, strerror(errno));
            return;
        }
        c->out.start += (size_t)n;
    }
    if (!c->closed) watch_for(c, c->out.start < c->out.end ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void open_connection(connection *c, const char *address) {
    char host[256];
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof host) die("%s: expected HOST:PORT", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int failure = getaddrinfo(host, colon + 1, &hints, &found);
    if (failure) die("%s: %s", address, gai_strerror(failure));
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    if (connect(c->fd, found->ai_addr, found->ai_addrlen)) die("connect to %s: %s", address, strerror(errno));
    freeaddrinfo(found);
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    open_connections++;
    put_int(&c->out, 45);
    put_int(&c->out, 0);  /* protocol version */
    put_long(&c->out, 0); /* last zxid seen */
    put_int(&c->out, SESSION_TIMEOUT_MS);
    put_long(&c->out, 0); /* session id: a new one */
    put_int(&c->out, 16);
    put(&c->out, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16); /* password */
    put(&c->out, "", 1);                                /* read-only sessions not wanted */
    c->last_sent_ns = now_ns();
    flush_out(c);
}

/* --- requests --- */

static char *value;
static uint64_t random_state = 88172645463325252ULL;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static size_t begin_request(connection *c, int type, int64_t now) {
    reserve(&c->out, 1024 + (size_t)value_size + strlen(prefix));
    size_t at = c->out.end - c->out.start;
    put_int(&c->out, 0);
    put_int(&c->out, c->next_xid);
    put_int(&c->out, type);
    int slot = (c->oldest + c->outstanding++) % ring_size;
    c->sent[slot].at_ns = c->last_sent_ns = now;
    c->sent[slot].xid = c->next_xid;
    c->next_xid = c->next_xid == INT32_MAX ? 1 : c->next_xid + 1;
    return at;
}

static void end_request(connection *c, size_t at) {
    uint32_t size = htonl((uint32_t)(c->out.end - c->out.start - at - 4));
    memcpy(c->out.data + c->out.start + at, &size, 4);
}

static void put_value(connection *c) {
    put_int(&c->out, value_size);
    put(&c->out, value, (size_t)value_size);
}

static void request_create(connection *c, const char *path, int64_t now) {
    size_t at = begin_request(c, OP_CREATE, now);
    put_string(&c->out, path);
    put_value(c);
    put_int(&c->out, 1);  /* one ACL entry: */
    put_int(&c->out, 31); /* all permissions */
    put_string(&c->out, "world");
    put_string(&c->out, "anyone");
    put_int(&c->out, 0); /* persistent */
    end_request(c, at);
}

static void request_get_or_set(connection *c, int type, int64_t now) {
    char path[512];
    long node = nodes == connections ? c->index : (long)(next_random() % (uint64_t)nodes);
    snprintf(path, sizeof path, "%s/%ld", prefix, node);
    size_t at = begin_request(c, type, now);
    put_string(&c->out, path);
    if (type == OP_SET_DATA) {
        put_value(c);
        put_int(&c->out, -1); /* any version */
    } else {
        put(&c->out, "", 1); /* no watch */
    }
    end_request(c, at);
}

static void request_ping(connection *c, int64_t now) {
    put_int(&c->out, 8);
    put_int(&c->out, XID_PING);
    put_int(&c->out, OP_PING);
    c->last_sent_ns = now;
    flush_out(c);
}

/* --- phases: each hands out requests until it is exhausted, and ends when all are answered --- */

typedef enum { CONNECTING, PREFIX, LEVEL_ONE, RUNNING, CLOSING } phase;
static phase current;
static long issued, wanted, answered; /* of the current phase; `wanted` < 0: until `stop_ns` */
static int64_t measure_from_ns, stop_ns, measured_until_ns, last_answer_ns;
static struct rusage usage_from, usage_until;
static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int number) {
    (void)number;
    stop_asked = 1;
}

/* The part of `prefix` before its n-th slash after the first; NULL when it has fewer. */
static const char *prefix_part(long n, char *path, size_t size) {
    const char *end = prefix;
    for (long i = 0; i <= n; i++) {
        if (*end == 0) return NULL;
        end = strchrnul(end + 1, '/');
    }
    snprintf(path, size, "%.*s", (int)(end - prefix), prefix);
    return path;
}

/* Appends the next request of the phase to the connection's output; 0 when there is none. */
static int next_request(connection *c, int64_t now) {
    char path[512];
    if (wanted >= 0 ? issued >= wanted : now >= stop_ns) return 0;
    switch (current) {
    case PREFIX:
        request_create(c, prefix_part(issued, path, sizeof path), now);
        break;
    case LEVEL_ONE:
        snprintf(path, sizeof path, "%s/%ld", prefix, issued);
        request_create(c, path, now);
        break;
    case RUNNING:
        if (op == TREE) {
            snprintf(path, sizeof path, "%s/%ld/%ld", prefix, issued / children, issued % children);
            request_create(c, path, now);
        } else if (op == CREATE) {
            snprintf(path, sizeof path, "%s/%d/%ld", prefix, c->index, c->created++);
            request_create(c, path, now);
        } else {
            int get = op == GET_DATA || (op == MIXED && next_random() % 5 != 0);
            request_get_or_set(c, get ? OP_GET_DATA : OP_SET_DATA, now);
        }
        break;
    default:
        return 0;
    }
    issued++;
    return 1;
}

static void fill(connection *c, int64_t now) {
    int limit = current == RUNNING ? window : current == PREFIX ? 1 : SETUP_WINDOW;
    if (current == PREFIX && c->index != 0) return;
    while (!c->closed && c->outstanding < limit && next_request(c, now)) {}
}

static void begin_phase(phase next) {
    char path[512];
    current = next;
    issued = answered = wanted = 0;
    int64_t now = last_answer_ns = now_ns();
    if (next == PREFIX) while (prefix_part(wanted, path, sizeof path)) wanted++;
    if (next == LEVEL_ONE) wanted = op == TREE ? parents : op == CREATE ? connections : nodes;
    if (next == RUNNING) {
        wanted = op == TREE ? (long)parents * children : count > 0 ? count : -1;
        measure_from_ns = now + (int64_t)(warmup_seconds * 1e9);
        stop_ns = measure_from_ns + (int64_t)(seconds * 1e9);
        getrusage(RUSAGE_SELF, &usage_from);
    }
    for (int i = 0; i < connections; i++) {
        if (all[i].closed) continue;
        if (next == CLOSING) {
            all[i].closing = 1;
            size_t at = begin_request(&all[i], OP_CLOSE, now);
            end_request(&all[i], at);
        } else {
            fill(&all[i], now);
        }
        flush_out(&all[i]);
    }
}

/* --- replies --- */

static void took_reply(connection *c, const char *frame, int32_t size, int64_t now) {
    if (!c->established) {
        if (size < 36) die("connection %d: short connect response", c->index);
        if (get_int(frame + 4) <= 0) die("connection %d: the session was refused", c->index);
        c->established = 1;
        established_connections++;
        return;
    }
    if (size < 16) die("connection %d: reply of %d bytes", c->index, size);
    int32_t xid = get_int(frame), error = get_int(frame + 12);
    last_answer_ns = now;
    if (xid == XID_PING || xid == XID_WATCH) return;
    if (c->outstanding == 0 || c->sent[c->oldest].xid != xid) die("connection %d: unexpected reply xid %d", c->index, xid);
    int64_t took_ns = now - c->sent[c->oldest].at_ns;
    c->oldest = (c->oldest + 1) % ring_size;
    c->outstanding--;
    answered++;
    if (current == PREFIX || current == LEVEL_ONE) {
        if (error && error != ERROR_NODE_EXISTS) die("create of a node failed: error %d", error);
    } else if (current == RUNNING && now >= measure_from_ns && (wanted >= 0 || now < stop_ns)) {
        measured_until_ns = now;
        if (error) count_error(error);
        else record(took_ns);
    }
}

static void took_input(connection *c) {
    while (!c->closed) {
        reserve(&c->in, 65536);
        ssize_t n = recv(c->fd, c->in.data + c->in.end, c->in.size - c->in.end, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            disconnect(c, n ? strerror(errno) : "closed by the server");
            return;
        }
        int full = (size_t)n == c->in.size - c->in.end;
        c->in.end += (size_t)n;
        int64_t now = now_ns();
        while (c->in.end - c->in.start >= 4) {
            int32_t size = get_int(c->in.data + c->in.start);
            if (size < 0 || size > 16 << 20) die("connection %d: frame of %d bytes", c->index, size);
            if (c->in.end - c->in.start < 4 + (size_t)size) break;
            took_reply(c, c->in.data + c->in.start + 4, size, now);
            c->in.start += 4 + (size_t)size;
        }
        fill(c, now);
        flush_out(c);
        if (!full) return;
    }
}

/* --- the run --- */

static long total_outstanding(void) {
    long total = 0;
    for (int i = 0; i < connections; i++)
        if (!all[i].closed) total += all[i].outstanding;
    return total;
}

static int phase_is_over(int64_t now) {
    if (open_connections == 0) return 1;
    if (current == CONNECTING) return established_connections == connections;
    if (current == CLOSING) return total_outstanding() == 0;
    if (wanted < 0) return now >= stop_ns && total_outstanding() == 0;
    return issued >= wanted && total_outstanding() == 0;
}

static void run_phase(void) {
    struct epoll_event ready[256];
    int64_t pinged_ns = now_ns();
    int counting = 0; /* whether measurement has begun and not ended: for the CPU time */
    for (int64_t now = now_ns(); !phase_is_over(now); now = now_ns()) {
        if (current == RUNNING && stop_asked && (wanted >= 0 || now < stop_ns)) {
            wanted = -1;
            stop_ns = now;
            seconds = now > measure_from_ns ? (double)(now - measure_from_ns) / 1e9 : 0;
        }
        if (current == RUNNING && counting == 0 && now >= measure_from_ns) {
            getrusage(RUSAGE_SELF, &usage_from);
            counting = 1;
        }
        if (counting == 1 && wanted < 0 && now >= stop_ns) {
            getrusage(RUSAGE_SELF, &usage_until);
            counting = 2;
        }
        int n = epoll_wait(poller, ready, 256, 100);
        if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            connection *c = ready[i].data.ptr;
            if (c->closed) continue;
            if (ready[i].events & EPOLLOUT) flush_out(c);
            if (ready[i].events & ~(uint32_t)EPOLLOUT) took_input(c);
        }
        now = now_ns();
        if (now - last_answer_ns > STALL_SECONDS * 1000000000LL) {
            if (current != RUNNING) die("no reply for %d s", STALL_SECONDS);
            fprintf(stderr, "zkload: no reply for %d s, giving up\n", STALL_SECONDS);
            unanswered += total_outstanding();
            break;
        }
        if (now - pinged_ns < 1000000000) continue;
        pinged_ns = now;
        for (int i = 0; i < connections; i++)
            if (!all[i].closed && all[i].established && now - all[i].last_sent_ns > PING_AFTER_MS * 1000000LL)
                request_ping(&all[i], now);
    }
    if (counting != 2) getrusage(RUSAGE_SELF, &usage_until);
}

static double cpu_seconds(const struct rusage *u) {
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) + (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void print_result(void) {
    double measured = wanted < 0 ? seconds : (double)(measured_until_ns - measure_from_ns) / 1e9;
    double cpu = cpu_seconds(&usage_until) - cpu_seconds(&usage_from);
    printf("{\"operation\": \"%s\", \"connections\": %d, \"window\": %d, \"value_bytes\": %d, ", operation_names[op],
           connections, window, value_size);
    printf("\"ops\": %lu, \"seconds\": %.3f, \"ops_per_second\": %.1f, ", (unsigned long)histogram_count, measured,
           measured > 0 ? (double)histogram_count / measured : 0.0);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p99_9_us\": %.1f, \"max_us\": %.1f, ",
           quantile_us(0.5), quantile_us(0.9), quantile_us(0.99), quantile_us(0.999), (double)histogram_max / 1000.0);
    printf("\"cpu_seconds\": %.3f, \"cpu_share\": %.3f, ", cpu, measured > 0 ? cpu / measured : 0.0);
    printf("\"disconnects\": %ld, \"unanswered\": %ld, \"errors\": {", disconnects, unanswered);
    for (int i = 0; i < ERROR_CODES && errors[i].count; i++)
        printf("%s\"%d\": %ld", i ? ", " : "", errors[i].code, errors[i].count);
    printf("}}\n");
}

static void usage(void) {
    fputs("usage: zkload [--op setData|getData|mixed|create|tree] [--connections N] [--window N] [--seconds S | --count N]\n"
          "              [--warmup S] [--size BYTES] [--prefix /PATH] [--nodes N] [--parents N] [--children N]\n"
          "              HOST:PORT...\n",
          stderr);
    exit(2);
}

static void parse_arguments(int argc, char **argv) {
    static const struct option options[] = {
        {"op", 1, 0, 'o'},     {"connections", 1, 0, 'c'}, {"window", 1, 0, 'w'}, {"seconds", 1, 0, 's'},
        {"count", 1, 0, 'n'},  {"warmup", 1, 0, 'u'},      {"size", 1, 0, 'v'},   {"prefix", 1, 0, 'p'},
        {"nodes", 1, 0, 'k'},  {"parents", 1, 0, 'P'},     {"children", 1, 0, 'C'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'o':
            for (op = SET_DATA; op <= TREE && strcmp(optarg, operation_names[op]); op++) {}
            if (op > TREE) usage();
            break;
        case 'c': connections = atoi(optarg); break;
        case 'w': window = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': count = atol(optarg); break;
        case 'u': warmup_seconds = atof(optarg); break;
        case 'v': value_size = atoi(optarg); break;
        case 'p': prefix = optarg; break;
        case 'k': nodes = atoi(optarg); break;
        case 'P': parents = atoi(optarg); break;
        case 'C': children = atoi(optarg); break;
        default: usage();
        }
    }
    if (nodes == 0) nodes = connections;
    size_t length = strlen(prefix);
    if (optind >= argc || connections < 1 || window < 1 || value_size < 0 || nodes < 1 || parents < 1 || children < 1 ||
        prefix[0] != '/' || length < 2 || length > 400 || prefix[length - 1] == '/')
        usage();
}

int main(int argc, char **argv) {
    parse_arguments(argc, argv);
    struct sigaction action = {.sa_handler = ask_to_stop};
    sigaction(SIGTERM, &action, NULL);
    value = checked(malloc((size_t)value_size + 1));
    memset(value, 'x', (size_t)value_size);
    all = checked(calloc((size_t)connections, sizeof *all));
    ring_size = (window > SETUP_WINDOW ? window : SETUP_WINDOW) + 1;
    poller = epoll_create1(0);
    if (poller < 0) die("epoll_create1: %s", strerror(errno));
    last_answer_ns = now_ns();
    for (int i = 0; i < connections; i++) {
        all[i].index = i;
        all[i].next_xid = 1;
        all[i].sent = checked(calloc((size_t)ring_size, sizeof *all[i].sent));
        open_connection(&all[i], argv[optind + i % (argc - optind)]);
    }
    for (phase next = CONNECTING; next <= RUNNING; next++) {
        if (next != CONNECTING) begin_phase(next);
        run_phase();
        if (next < RUNNING && disconnects) die("lost a connection before the run began");
    }
    print_result();
    begin_phase(CLOSING);
    run_phase();
    return 0;
}
