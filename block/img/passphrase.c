/* Asking for passphrases on the terminal, and the secrets of --object.
 *
 * Standard input must be a terminal: a script that gives it something else is not
 * to be stopped by a question.  While a passphrase is typed the terminal neither
 * echoes nor turns ^C into a signal, so that it is always put back as it was. */
#include "block/img/img.h"

#include "base/io.h"
#include "base/opts.h"
#include "base/pool.h"
#include "block/crypto/key.h"
#include "block/names.h"
#include "block/secret.h"
#include "block/unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#define PASSPHRASE_MOST 1024

enum { KEY_INTERRUPT = 3, KEY_END = 4, KEY_BACKSPACE = 8, KEY_CLEAR = 21, KEY_DELETE = 127 };

struct question {
	const char *program, *image, *why;
	struct key *line;
	size_t n;
	const bool *stop; /* [atomic] img_progress; NULL: signals end the process */
};

/* 1: the line is complete; else 0, or what ends it early. */
static int take_char(struct question *q, u8 c)
{
	switch (c) {
	case '\n':
	case '\r': return 1;
	case KEY_INTERRUPT: return -EINTR;
	case KEY_END: return q->n ? 1 : -EINTR;
	case KEY_CLEAR: q->n = 0; return 0;
	case KEY_BACKSPACE:
	case KEY_DELETE: q->n -= q->n > 0; return 0;
	default:
		if (q->n < q->line->bytes)
			q->line->data[q->n++] = c;
		return 0;
	}
}

/* Wait for a key, or for a signal that the loop has taken. */
static bool wait_key(int fd, const struct question *q)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (!q->stop)
		return true;
	while (!__atomic_load_n(q->stop, __ATOMIC_RELAXED))
		if (poll(&p, 1, 100))
			return true;
	return false;
}

static int read_line(int fd, struct question *q)
{
	int ret = 0;
	u8 c;

	while (ret == 0) {
		s64 got = wait_key(fd, q) ? sys_read(fd, &c, 1) : -EINTR;

		if (got <= 0)
			return got < 0 ? (int)got : -EINTR;
		ret = take_char(q, c);
	}
	wipe(&c, 1);
	return ret < 0 ? ret : 0;
}

static void say(int fd, const struct question *q)
{
	AUTO_FREE char *text = NULL;

	text = xasprintf(
		"%s%s%s%s%s%sDisk image '%s' is encrypted.\npassword: ", q->why ? q->program : "",
		q->why ? ": Could not open '" : "", q->why ? q->image : "", q->why ? "': " : "",
		q->why ? q->why : "", q->why ? "\n" : "", q->image);
	(void)!sys_write_all(fd, text, strlen(text));
}

/* Whatever was typed ahead of the question is not the answer. */
static int ask_on(int fd, struct question *q)
{
	struct termios was, quiet;
	int ret;

	if (tcgetattr(fd, &was))
		return -ENOTTY;
	quiet = was;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG);
	quiet.c_cc[VMIN] = 1;
	quiet.c_cc[VTIME] = 0;
	tcsetattr(fd, TCSAFLUSH, &quiet);
	say(fd, q);
	ret = read_line(fd, q);
	(void)!sys_write_all(fd, "\n", 1);
	tcsetattr(fd, TCSANOW, &was);
	return ret;
}

static int ask_blocking(void *arg)
{
	struct question *q = arg;
	int fd, ret;

	if (!isatty(STDIN_FILENO))
		return -ENOTTY;
	fd = sys_open("/dev/tty", O_RDWR | O_CLOEXEC, 0);
	ret = ask_on(fd < 0 ? STDIN_FILENO : fd, q);
	if (fd >= 0)
		sys_close(fd);
	return ret;
}

int img_ask(struct fiber *f, void *arg, const struct unlock_question *what, struct key *out,
	    struct error *err)
{
	const struct img *ctx = arg;
	struct key line;
	struct question q = {ctx->program, what->image, what->why, &line, 0, ctx->stop};
	int ret = key_new(&line, PASSPHRASE_MOST);

	if (ret == 0) {
		fflush(stdout);
		ret = pool_call(f, ask_blocking, &q);
		if (ret == 0)
			ret = key_set(out, line.data, q.n);
		key_wipe(&line);
	}
	if (ret == 0 || ret == -ENOTTY)
		return ret;
	return err_set_errno(err, ret, "Could not read the passphrase");
}

/* --- --object --------------------------------------------------------------------------- */

/* "secret,id=..." or {"qom-type": "secret", ...} */
static int parse_object(const char *text, struct opts *o, struct error *err)
{
	AUTO_FREE char *json = NULL;

	if (*text != '{')
		return opts_parse(o, text, "qom-type", err);
	json = xasprintf("json:%s", text);
	return name_parse_json(json, o, err);
}

static int print_secret_help(void)
{
	printf("secret options:\n  data=<string>\n  file=<string>\n"
	       "  format=<QCryptoSecretFormat>\n  iv=<string>\n  keyid=<string>\n");
	fflush(stdout);
	exit(IMG_OK);
}

/* The text stands in the process's arguments; it goes no further from here. */
static void wipe_opts(struct opts *o)
{
	for (unsigned i = 0; i < o->n; i++)
		wipe(o->v[i].value, strlen(o->v[i].value));
	opts_fini(o);
}

int img_object(struct img *ctx, const char *text)
{
	struct error err = {0};
	struct opts o = {0};
	const char *type;
	int ret = parse_object(text, &o, &err);

	if (ret == 0) {
		type = opts_get(&o, "qom-type");
		if (type && !strcmp(type, "secret") && (opts_has(&o, "help") || opts_has(&o, "?")))
			return print_secret_help();
		if (!type)
			ret = err_set(&err, -EINVAL, "Parameter 'qom-type' is missing");
		else if (strcmp(type, "secret"))
			ret = err_set(&err, -EINVAL,
				      "Parameter 'qom-type' does not accept value '%s'", type);
		else
			ret = secrets_add(&ctx->secrets, &o, &err);
	}
	wipe_opts(&o);
	return ret < 0 ? img_error(ctx, "%s", err.text) : IMG_OK;
}
