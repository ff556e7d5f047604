/* A library for LD_PRELOAD: the Nth of some calls on some files goes wrong.
 *
 *   COWVM_FAULT="KIND NTH ACTION PATH"
 *	KIND	any of r w s t: reads, writes (also fallocate), syncs, truncations
 *	NTH	1 is the first; "3+": the third and all that follow
 *	ACTION	an errno as a number; "int" sends SIGINT to the process and lets the
 *		call through; "kill" ends it there
 *	PATH	a part of the names of the files that count
 *   COWVM_FAULT_COUNT=FILE	at the end, how many calls were counted
 *
 * With COWVM_IO=threads all file I/O of cowimg goes through these calls.  Names are
 * looked up in /proc at each call: slow, and right. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct plan {
	char kinds[8], action[16], path[256];
	int nth;
	bool on, all_after;
};

static int counted; /* [atomic] by all threads */

static const struct plan *plan(void)
{
	static struct plan p; /* filled by the constructor, before any thread */

	return &p;
}

__attribute__((constructor)) static void begin(void)
{
	struct plan *p = (struct plan *)plan();
	const char *text = getenv("COWVM_FAULT");
	char after = 0;

	if (!text)
		return;
	p->on = sscanf(text, "%7s %d%c%15s %255s", p->kinds, &p->nth, &after, p->action, p->path) ==
		5;
	p->all_after = after == '+';
	if (!p->on) {
		fprintf(stderr, "COWVM_FAULT: what is \"%s\"?\n", text);
		abort();
	}
}

__attribute__((destructor)) static void end(void)
{
	const char *name = getenv("COWVM_FAULT_COUNT");
	FILE *f = name ? fopen(name, "w") : NULL;

	if (f) {
		fprintf(f, "%d\n", __atomic_load_n(&counted, __ATOMIC_SEQ_CST));
		fclose(f);
	}
}

static bool is_meant(const struct plan *p, char kind, int fd)
{
	char link[64], name[512];
	ssize_t n;

	if (!p->on || !strchr(p->kinds, kind))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	if (n < 0)
		return false;
	name[n] = 0;
	return strstr(name, p->path);
}

/* True: the call fails, with errno set. */
static bool fails(char kind, int fd)
{
	const struct plan *p = plan();
	int n;

	if (!is_meant(p, kind, fd))
		return false;
	n = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
	if (n < p->nth || (n > p->nth && !p->all_after))
		return false;
	if (!strcmp(p->action, "kill"))
		_exit(137);
	if (!strcmp(p->action, "int")) {
		kill(getpid(), SIGINT);
		return false;
	}
	errno = atoi(p->action);
	return true;
}

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t at)
{
	return fails('r', fd) ? -1 : REAL(preadv)(fd, iov, n, at);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	return fails('r', fd) ? -1 : REAL(preadv2)(fd, iov, n, at, flags);
}

ssize_t pread(int fd, void *buf, size_t bytes, off_t at)
{
	return fails('r', fd) ? -1 : REAL(pread)(fd, buf, bytes, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	return fails('w', fd) ? -1 : REAL(pwritev)(fd, iov, n, at);
}

ssize_t pwrite(int fd, const void *buf, size_t bytes, off_t at)
{
	return fails('w', fd) ? -1 : REAL(pwrite)(fd, buf, bytes, at);
}

ssize_t copy_file_range(int from, off_t *in, int to, off_t *out, size_t bytes, unsigned flags)
{
	return fails('w', to) || fails('r', from)
		       ? -1
		       : REAL(copy_file_range)(from, in, to, out, bytes, flags);
}

int fallocate(int fd, int mode, off_t at, off_t bytes)
{
	return fails('w', fd) ? -1 : REAL(fallocate)(fd, mode, at, bytes);
}

int fdatasync(int fd)
{
	return fails('s', fd) ? -1 : REAL(fdatasync)(fd);
}

int fsync(int fd)
{
	return fails('s', fd) ? -1 : REAL(fsync)(fd);
}

int ftruncate(int fd, off_t bytes)
{
	return fails('t', fd) ? -1 : REAL(ftruncate)(fd, bytes);
}
