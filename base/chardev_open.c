/* The host ends of chardevs: what "stdio", "file:", "pty", "unix:" mean.
 *
 * Descriptors that are ours alone are made non-blocking.  Standard input and
 * output may be shared with other programs, so the flag is not set on them:
 * terminals and pipes are opened anew by /proc/self/fd instead.  Thread: main. */
#define _GNU_SOURCE
#include "base/chardev_internal.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void describe(struct chardev *c, const char *text)
{
	free(c->description);
	c->description = xstrdup(text);
}

/* A non-blocking descriptor for the same terminal or pipe; fd itself otherwise. */
static int reopen(int fd, int access)
{
	char path[32];
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ret = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return ret < 0 ? fd : ret;
}

/* Raw input: characters reach the guest as typed.  Output processing stays, as
 * log lines of ours appear on the same screen. */
static void make_raw(struct chardev *c, bool signals)
{
	struct termios raw;

	if (tcgetattr(c->in_fd, &c->saved_termios) < 0)
		return;
	raw = c->saved_termios;
	raw.c_iflag &=
		~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_oflag |= OPOST;
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
	if (!signals)
		raw.c_lflag &= ~(tcflag_t)ISIG;
	raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	raw.c_cflag |= CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	tcsetattr(c->in_fd, TCSANOW, &raw);
	c->is_terminal = true;
	c->signals = signals;
}

void chardev_take_interrupt(struct chardev *c, bool on)
{
	struct termios t;

	if (!c->is_terminal || !c->signals || tcgetattr(c->in_fd, &t) < 0)
		return;
	if (on)
		t.c_lflag &= ~(tcflag_t)ISIG;
	else
		t.c_lflag |= ISIG;
	tcsetattr(c->in_fd, TCSANOW, &t);
}

static int open_stdio(struct chardev *c, const char *args, bool signals, struct error *err)
{
	int in, out;

	if (!strcmp(args, ",signal=off"))
		signals = false;
	else if (*args && strcmp(args, ",signal=on"))
		return err_set(err, -EINVAL, "stdio: unknown option '%s', expected signal=on|off",
			       args + 1);
	in = reopen(STDIN_FILENO, O_RDONLY);
	out = reopen(STDOUT_FILENO, O_WRONLY);
	c->in_fd = in;
	if (isatty(in))
		make_raw(c, signals);
	if (out == STDOUT_FILENO) {
		struct stat st;

		c->out_is_socket = fstat(out, &st) == 0 && S_ISSOCK(st.st_mode);
	}
	chardev_connect(c, in, out);
	describe(c, "stdio");
	return 0;
}

static int open_file(struct chardev *c, const char *path, struct error *err)
{
	char text[300];
	int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		return err_set_errno(err, fd, "%s: cannot open '%s'", c->id, path);
	chardev_connect(c, -1, fd);
	snprintf(text, sizeof(text), "file: %s", path);
	describe(c, text);
	return 0;
}

static int open_pty(struct chardev *c, struct error *err)
{
	struct termios raw;
	char name[64], text[80];
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return err_set_errno(err, -errno, "%s: cannot make a pty", c->id);
	if (grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name))) {
		int ret = err_set_errno(err, -errno, "%s: cannot make a pty", c->id);

		sys_close(fd);
		return ret;
	}
	/* With no reader the other end would report a hang-up at every poll. */
	c->keep_fd = sys_open(name, O_RDWR | O_NOCTTY, 0);
	if (c->keep_fd >= 0 && tcgetattr(c->keep_fd, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(c->keep_fd, TCSANOW, &raw);
	}
	chardev_connect(c, fd, fd);
	snprintf(text, sizeof(text), "pty:%s", name);
	describe(c, text);
	printf("char device redirected to %s (label %s)\n", name, c->id);
	fflush(stdout);
	return 0;
}

struct unix_options {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool server, wait;
};

static int unix_option(struct unix_options *o, const char *word, const char *id, struct error *err)
{
	if (!strcmp(word, "server") || !strcmp(word, "server=on"))
		o->server = true;
	else if (!strcmp(word, "server=off"))
		o->server = false;
	else if (!strcmp(word, "nowait") || !strcmp(word, "wait=off"))
		o->wait = false;
	else if (!strcmp(word, "wait") || !strcmp(word, "wait=on"))
		o->wait = true;
	else if (strcmp(word, "nodelay") && strcmp(word, "nodelay=on"))
		return err_set(err, -EINVAL,
			       "%s: unknown socket option '%s', expected server or nowait", id,
			       word);
	return 0;
}

static int parse_unix(struct unix_options *o, const char *spec, const char *id, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(spec);
	char *rest = copy, *word = strsep(&rest, ",");
	int ret;

	*o = (struct unix_options){.wait = true};
	if (!*word || strlen(word) >= sizeof(o->path))
		return err_set(err, -EINVAL,
			       "%s: UNIX socket path '%s' has %zu bytes, expected 1..%zu", id, word,
			       strlen(word), sizeof(o->path) - 1);
	strcpy(o->path, word);
	while ((word = strsep(&rest, ","))) {
		ret = unix_option(o, word, id, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int listen_unix(struct chardev *c, const struct unix_options *o,
		       const struct sockaddr_un *addr, struct error *err)
{
	int fd, peer = -1, ret;

	unlink(o->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set_errno(err, -errno, "%s: cannot make a socket", c->id);
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 || listen(fd, 1) < 0) {
		ret = err_set_errno(err, -errno, "%s: Failed to bind socket to %s", c->id, o->path);
		sys_close(fd);
		return ret;
	}
	/* Whole, as a daemon changes its directory. */
	c->unlink_path = realpath(o->path, NULL);
	if (o->wait) {
		log_info("waiting for connection on: disconnected:unix:%s,server=on", o->path);
		do
			peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		while (peer < 0 && errno == EINTR);
	}
	if (peer >= 0)
		chardev_connect(c, peer, peer);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	chardev_listen(c, fd);
	return 0;
}

static int open_unix(struct chardev *c, const char *spec, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct unix_options o;
	char text[160];
	int ret, fd;

	ret = parse_unix(&o, spec, c->id, err);
	if (ret < 0)
		return ret;
	strcpy(addr.sun_path, o.path);
	c->out_is_socket = true;
	snprintf(text, sizeof(text), "unix:%s%s", o.path, o.server ? ",server=on" : "");
	describe(c, text);
	if (o.server)
		return listen_unix(c, &o, &addr, err);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set_errno(err, -errno, "%s: cannot make a socket", c->id);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = err_set_errno(err, -errno, "%s: Failed to connect to '%s'", c->id, o.path);
		sys_close(fd);
		return ret;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	chardev_connect(c, fd, fd);
	return 0;
}

/* The rest of spec after a word that ends there or is followed by ','; else NULL. */
static const char *after(const char *spec, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(spec, word, n) || (spec[n] && spec[n] != ','))
		return NULL;
	return spec + n;
}

static int open_host(struct chardev *c, const char *spec, struct error *err)
{
	const char *args;

	if ((args = after(spec, "stdio")))
		return open_stdio(c, args, true, err);
	if ((args = after(spec, "mon:stdio")))
		return open_stdio(c, args, false, err);
	if (!strncmp(spec, "file:", 5) && spec[5])
		return open_file(c, spec + 5, err);
	if (!strncmp(spec, "unix:", 5))
		return open_unix(c, spec + 5, err);
	if (!strcmp(spec, "pty"))
		return open_pty(c, err);
	if (!strcmp(spec, "null") || after(spec, "vc") || !strncmp(spec, "vc:", 3))
		return 0;
	return err_set(err, -EINVAL,
		       "'%s' is not a character device, expected stdio, mon:stdio, file:PATH, pty, "
		       "unix:PATH[,server][,nowait], null, vc or none",
		       spec);
}

int chardev_open(struct chardev **out, struct loop *loop, const char *id, const char *spec,
		 struct error *err)
{
	struct chardev *c;
	int ret;

	*out = NULL;
	if (!strcmp(spec, "none"))
		return 0;
	c = chardev_alloc(loop, id, spec);
	ret = open_host(c, spec, err);
	if (ret == 0 && !strncmp(spec, "mon:", 4))
		ret = chardev_make_mux(c, NULL, NULL, err);
	if (ret < 0) {
		chardev_close(c);
		return ret;
	}
	*out = c;
	return 0;
}
