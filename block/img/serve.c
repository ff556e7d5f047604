/* cowimg serve: an image over the network block device protocol, on a unix socket
 * or a loopback address.  Options are qemu-nbd's.
 *
 * SIGTERM and SIGINT end it in order: what is in flight is finished, the image is
 * flushed and closed.  --fork starts the program anew in the background, as rings
 * do not survive a fork, and returns when clients may connect. */
#define _GNU_SOURCE
#include "block/img/img.h"

#include "base/io.h"
#include "base/opts.h"
#include "block/image.h"
#include "block/nbd/proto.h"
#include "block/nbd/server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKLOG 64

extern char **environ;

struct serve {
	struct img *ctx;
	struct img_source src;
	struct nbd_export export;
	const char *file, *socket, *address, *port, *pid_file;
	bool fork;
	int ready_fd; /* in the background: told when clients may connect; -1: none */
};

/* --- sockets --------------------------------------------------------------------- */

static int listen_unix(struct serve *o)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	if (strlen(o->socket) >= sizeof(sun.sun_path))
		return img_error(o->ctx, "socket path '%s' is too long", o->socket), -1;
	strcpy(sun.sun_path, o->socket);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* One that a server left behind; another kind of file is none of ours. */
	if (lstat(o->socket, &st) == 0 && S_ISSOCK(st.st_mode))
		(void)unlink(o->socket);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0 &&
	    listen(fd, BACKLOG) == 0)
		return fd;
	img_error(o->ctx, "Failed to bind socket to %s: %s", o->socket, strerror(errno));
	sys_close(fd);
	return -1;
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static int listen_at(struct serve *o, const struct addrinfo *a)
{
	int one = 1, fd;

	if (!is_loopback(a->ai_addr))
		return img_error(o->ctx, "Only loopback addresses are served, not '%s'",
				 o->address),
		       -1;
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	img_error(o->ctx, "Failed to bind socket to %s:%s: %s", o->address, o->port,
		  strerror(errno));
	sys_close(fd);
	return -1;
}

static int listen_tcp(struct serve *o)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM},
			*list;
	int ret = getaddrinfo(o->address, o->port, &hints, &list), fd;

	if (ret)
		return img_error(o->ctx, "address resolution failed for %s:%s: %s", o->address,
				 o->port, gai_strerror(ret)),
		       -1;
	fd = listen_at(o, list);
	freeaddrinfo(list);
	return fd;
}

/* --- serving --------------------------------------------------------------------- */

static int write_pid(struct serve *o)
{
	AUTO_FREE char *text = xasprintf("%ld\n", (long)getpid());
	int fd = sys_open(o->pid_file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	int ret = fd < 0 ? fd : sys_write_all(fd, text, strlen(text));

	sys_close(fd);
	return ret < 0 ? img_error(o->ctx, "Cannot create PID file '%s': %s", o->pid_file,
				   strerror(-ret))
		       : IMG_OK;
}

/* Clients may connect: let go of whoever waits for that. */
static void tell_ready(struct serve *o)
{
	int null = sys_open("/dev/null", O_RDWR, 0);

	(void)sys_write(o->ready_fd, "", 1);
	sys_close(o->ready_fd);
	for (int fd = 0; fd <= 2 && null >= 0; fd++)
		(void)dup2(null, fd);
	sys_close(null);
	(void)setsid();
}

static int serve_image(struct serve *o, int listen_fd)
{
	sigset_t signals;
	int stop_fd, ret;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	stop_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (stop_fd < 0)
		return img_error(o->ctx, "Cannot watch for signals: %s", strerror(errno));
	if (o->pid_file && write_pid(o))
		return IMG_ERROR;
	if (o->ready_fd >= 0)
		tell_ready(o);
	ret = nbd_serve(o->ctx->f, &o->export, listen_fd, stop_fd);
	sys_close(stop_fd);
	if (o->pid_file)
		(void)unlink(o->pid_file);
	return ret < 0 ? img_error(o->ctx, "Could not flush '%s': %s", o->file, strerror(-ret))
		       : IMG_OK;
}

static int open_and_serve(struct serve *o)
{
	int listen_fd, code = img_open(o->ctx, o->file, &o->src, &o->export.img);

	if (code)
		return code;
	listen_fd = o->socket ? listen_unix(o) : listen_tcp(o);
	code = listen_fd < 0 ? IMG_ERROR : serve_image(o, listen_fd);
	if (listen_fd >= 0 && o->socket)
		(void)unlink(o->socket);
	sys_close(listen_fd);
	return img_close(o->ctx, o->export.img, code);
}

/* --- in the background ------------------------------------------------------------- */

static int wait_ready(struct serve *o, pid_t pid, int fd)
{
	int status = 0;
	char byte;

	if (sys_read(fd, &byte, 1) == 1)
		return IMG_OK;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : IMG_ERROR;
}

/* The same command line again, told to report; it drops --fork itself. */
static int start_in_background(struct serve *o, int argc, char **argv)
{
	AUTO_FREE char **args = xnew_n(char *, (size_t)argc + 3);
	AUTO_FREE char *ready = NULL;
	int pipe_fds[2], ret, n = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return img_error(o->ctx, "Failed to start in the background: %s", strerror(errno));
	fcntl(pipe_fds[1], F_SETFD, 0);
	ready = xasprintf("--ready-fd=%d", pipe_fds[1]);
	args[n++] = (char *)(uintptr_t)o->ctx->program;
	args[n++] = argv[0];
	args[n++] = ready;
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	ret = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ);
	sys_close(pipe_fds[1]);
	if (ret)
		ret = img_error(o->ctx, "Failed to start in the background: %s", strerror(ret));
	else
		ret = wait_ready(o, pid, pipe_fds[0]);
	sys_close(pipe_fds[0]);
	return ret;
}

/* --- command line ------------------------------------------------------------------ */

enum { OPTION_PID = 256, OPTION_DISCARD, OPTION_PERSISTENT, OPTION_FORK, OPTION_READY };

static int parse_discard(struct serve *o)
{
	static const char *const words[] = {"ignore", "off", "unmap", "on", NULL};
	int at = parse_choice(optarg, words);

	if (at < 0)
		return img_error(o->ctx, "Invalid discard mode `%s'", optarg);
	o->export.discard = o->src.discard = at >= 2;
	return IMG_OK;
}

static int parse_shared(struct serve *o)
{
	u64 n;

	if (parse_u64(optarg, &n) < 0 || n > INT32_MAX)
		return img_error(o->ctx, "Invalid shared device number '%s'", optarg);
	o->export.max_clients = (unsigned)n;
	return IMG_OK;
}

static int parse_ready(struct serve *o)
{
	u64 fd;

	if (parse_u64(optarg, &fd) < 0 || fd > INT32_MAX || fcntl((int)fd, F_GETFD) < 0)
		return img_error(o->ctx, "Invalid descriptor '%s'", optarg);
	o->ready_fd = (int)fd;
	fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC);
	return IMG_OK;
}

static int parse_option(struct serve *o, int letter)
{
	switch (letter) {
	case 'r': o->export.readonly = true; return IMG_OK;
	case 'k': o->socket = optarg; return IMG_OK;
	case 'b': o->address = optarg; return IMG_OK;
	case 'p': o->port = optarg; return IMG_OK;
	case 'x': o->export.name = optarg; return IMG_OK;
	case 'D': o->export.description = optarg; return IMG_OK;
	case 'e': return parse_shared(o);
	case 'l': o->src.snapshot = optarg; return IMG_OK;
	case OPTION_PID: o->pid_file = optarg; return IMG_OK;
	case OPTION_DISCARD: return parse_discard(o);
	case OPTION_PERSISTENT: o->export.persistent = true; return IMG_OK;
	case OPTION_FORK: o->fork = true; return IMG_OK;
	case OPTION_READY: return parse_ready(o);
	default: return img_source_option(o->ctx, &o->src, letter);
	}
}

static int judge(struct serve *o, int argc)
{
	u64 port;

	if (optind != argc - 1)
		return img_usage_error(o->ctx, "Expecting one image file name");
	if (strlen(o->export.name) > NBD_MAX_NAME)
		return img_error(o->ctx, "export name is too long");
	if (o->export.description && strlen(o->export.description) > NBD_MAX_NAME)
		return img_error(o->ctx, "description is too long");
	if (o->socket && (o->address || o->port))
		return img_error(o->ctx, "A socket path and an address exclude each other");
	if (o->port && (parse_u64(o->port, &port) < 0 || !port || port > 65535))
		return img_error(o->ctx, "Invalid port `%s'", o->port);
	return IMG_OK;
}

int img_serve(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},
		IMG_SOURCE_OPTIONS,
		{"read-only", no_argument, NULL, 'r'},
		{"cache", required_argument, NULL, 't'},
		{"socket", required_argument, NULL, 'k'},
		{"bind", required_argument, NULL, 'b'},
		{"port", required_argument, NULL, 'p'},
		{"export-name", required_argument, NULL, 'x'},
		{"description", required_argument, NULL, 'D'},
		{"shared", required_argument, NULL, 'e'},
		{"snapshot", required_argument, NULL, 'l'},
		{"load-snapshot", required_argument, NULL, 'l'},
		{"pid-file", required_argument, NULL, OPTION_PID},
		{"discard", required_argument, NULL, OPTION_DISCARD},
		{"persistent", no_argument, NULL, OPTION_PERSISTENT},
		{"fork", no_argument, NULL, OPTION_FORK},
		{"ready-fd", required_argument, NULL, OPTION_READY},
		{0}};
	struct serve o = {.ctx = ctx, .export = {.name = "", .max_clients = 1}, .ready_fd = -1};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":hf:rUt:k:b:p:x:D:e:l:", options)) != -1)
		if (parse_option(&o, letter))
			return IMG_ERROR;
	if (judge(&o, argc))
		return IMG_ERROR;
	if (o.fork && o.ready_fd < 0)
		return start_in_background(&o, argc, argv);
	o.file = argv[optind];
	o.export.readonly |= o.src.snapshot != NULL;
	o.src.writable = !o.export.readonly;
	if (!o.address)
		o.address = "127.0.0.1";
	if (!o.port)
		o.port = "10809";
	return open_and_serve(&o);
}
