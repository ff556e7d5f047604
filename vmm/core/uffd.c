/* userfaultfd; see uffd.h.
 *
 * Writes to pages that were never touched must be reported as well: new kernels do
 * it themselves (WP_UNPOPULATED); on others the pages are populated (by reading) when
 * they are protected.
 * Threads: the fault thread reads the descriptor; everything else is a system call
 * and may come from any thread. */
#include "vmm/core/uffd.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From newer kernels' headers. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#define FEATURE_WP_UNPOPULATED ((u64)1 << 13)
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define NEEDED (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID)
#define PAGE   4096u

struct uffd {
	int fd, end_fd;	     /* [const] */
	bool wp_unpopulated; /* [const] */
	uffd_fn *fn;	     /* [const] */
	void *arg;	     /* [const] */
	pthread_t thread;    /* [const] */
};

/* --- the descriptor ----------------------------------------------------------- */

static int open_descriptor(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd;

	if (dev >= 0) {
		fd = sys_ioctl(dev, USERFAULTFD_IOC_NEW,
			       (void *)(uintptr_t)(O_CLOEXEC | O_NONBLOCK));
		close(dev);
		if (fd >= 0)
			return fd;
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* Agree on features: those we need, and more where there is more.  A descriptor can
 * be asked once only. */
static int agree(int *fd, u64 features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int ret = open_descriptor();

	if (ret < 0)
		return ret;
	*fd = ret;
	ret = sys_ioctl(*fd, UFFDIO_API, &api);
	if (ret < 0) {
		close(*fd);
		return ret;
	}
	return 0;
}

static int open_uffd(struct uffd *u, struct error *err)
{
	int ret = agree(&u->fd, NEEDED | FEATURE_WP_UNPOPULATED);

	if (ret == 0) {
		u->wp_unpopulated = true;
		return 0;
	}
	if (ret == -EINVAL)
		ret = agree(&u->fd, NEEDED);
	return ret < 0 ? err_set_errno(err, ret, "userfaultfd") : 0;
}

/* --- the fault thread ----------------------------------------------------------- */

static void handle(struct uffd *u, const struct uffd_msg *msg)
{
	u64 flags = msg->arg.pagefault.flags;
	u8 *host = (u8 *)(uintptr_t)(msg->arg.pagefault.address & ~(u64)(PAGE - 1));

	if (msg->event == UFFD_EVENT_PAGEFAULT)
		u->fn(u->arg, host, !(flags & UFFD_PAGEFAULT_FLAG_WP),
		      msg->arg.pagefault.feat.ptid);
}

static void *fault_thread(void *arg)
{
	struct uffd *u = arg;
	struct pollfd fds[] = {{.fd = u->fd, .events = POLLIN},
			       {.fd = u->end_fd, .events = POLLIN}};
	struct uffd_msg msgs[16];

	for (;;) {
		ssize_t n = read(u->fd, msgs, sizeof(msgs));

		for (ssize_t i = 0; i < n / (ssize_t)sizeof(msgs[0]); i++)
			handle(u, &msgs[i]);
		if (n > 0)
			continue;
		if (poll(fds, ARRAY_LEN(fds), -1) > 0 && fds[1].revents)
			return NULL;
	}
}

int uffd_new(struct uffd **out, uffd_fn *fn, void *arg, struct error *err)
{
	struct uffd *u = xnew(struct uffd);
	int ret = open_uffd(u, err);

	if (ret < 0) {
		free(u);
		return ret;
	}
	u->fn = fn;
	u->arg = arg;
	u->end_fd = eventfd(0, EFD_CLOEXEC);
	ret = u->end_fd < 0 ? err_set(err, -EMFILE, "no descriptor left for userfaultfd")
			    : thread_start(&u->thread, "faults", fault_thread, u, err);
	if (ret < 0) {
		if (u->end_fd >= 0)
			close(u->end_fd);
		close(u->fd);
		free(u);
		return ret;
	}
	*out = u;
	return 0;
}

void uffd_free(struct uffd *u)
{
	const u64 one = 1;

	if (!u)
		return;
	if (write(u->end_fd, &one, sizeof(one)) != sizeof(one))
		log_error("userfaultfd: the fault thread cannot be told to end");
	pthread_join(u->thread, NULL);
	close(u->end_fd);
	close(u->fd); /* wakes all who wait */
	free(u);
}

/* --- ranges --------------------------------------------------------------------- */

static struct uffdio_range range(void *host, u64 bytes)
{
	assert(is_aligned((uintptr_t)host | bytes, PAGE));
	return (struct uffdio_range){.start = (uintptr_t)host, .len = bytes};
}

int uffd_add(struct uffd *u, void *host, u64 bytes, u32 modes)
{
	struct uffdio_register reg = {
		.range = range(host, bytes),
		.mode = (modes & UFFD_WRITES ? UFFDIO_REGISTER_MODE_WP : 0) |
			(modes & UFFD_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0),
	};

	return sys_ioctl(u->fd, UFFDIO_REGISTER, &reg);
}

int uffd_remove(struct uffd *u, void *host, u64 bytes)
{
	struct uffdio_range r = range(host, bytes);

	return sys_ioctl(u->fd, UFFDIO_UNREGISTER, &r);
}

int uffd_protect(struct uffd *u, void *host, u64 bytes, bool on)
{
	struct uffdio_writeprotect wp = {.range = range(host, bytes),
					 .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
	int ret;

	if (on && !u->wp_unpopulated && madvise(host, bytes, MADV_POPULATE_READ) < 0)
		return -errno;
	do /* -EAGAIN: the address space is being changed by another thread */
		ret = sys_ioctl(u->fd, UFFDIO_WRITEPROTECT, &wp);
	while (ret == -EAGAIN);
	return ret;
}

int uffd_wake(struct uffd *u, void *host, u64 bytes)
{
	struct uffdio_range r = range(host, bytes);

	return sys_ioctl(u->fd, UFFDIO_WAKE, &r);
}

int uffd_fill(struct uffd *u, void *host, const void *from, u64 bytes)
{
	u64 done = 0;
	int ret = 0;

	while (done < bytes && ret == 0) {
		struct uffdio_copy c = {.dst = (uintptr_t)host + done,
					.src = (uintptr_t)from + done,
					.len = bytes - done};

		ret = sys_ioctl(u->fd, UFFDIO_COPY, &c);
		if (c.copy > 0)
			done += (u64)c.copy;
		if (ret == -EAGAIN)
			ret = 0;
	}
	return ret;
}

int uffd_fill_zero(struct uffd *u, void *host, u64 bytes)
{
	u64 done = 0;
	int ret = 0;

	while (done < bytes && ret == 0) {
		struct uffdio_zeropage z = {.range = range((u8 *)host + done, bytes - done)};

		ret = sys_ioctl(u->fd, UFFDIO_ZEROPAGE, &z);
		if (z.zeropage > 0)
			done += (u64)z.zeropage;
		if (ret == -EAGAIN)
			ret = 0;
	}
	return ret;
}
