/* Host memory behind guest memory; see mem_host.h.
 *
 * madvise(2), Documentation/admin-guide/mm/hugetlbpage.rst and transhuge.rst.  A file of
 * -mem-path has no name and is mapped shared: what is taken out of it is gone.
 * Thread: control; discarding: any. */
#define _GNU_SOURCE /* O_TMPFILE, mkostemp */
#include "vmm/core/mem_host.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE_BYTES	 ((u64)4 * KiB)
#define HUGE_BYTES	 ((u64)2 * MiB)
#define POPULATE_BYTES	 (64 * MiB) /* in one call */
#define POPULATE_THREADS 4
#define PROGRESS_NS	 NS_PER_SEC

/* --- mapping -------------------------------------------------------------------------- */

/* Large pieces start at a multiple of the huge page size, so that guest and host
 * addresses agree below it and the host can map huge pages. */
static u8 *map_aligned(u64 bytes, u64 align, int fd)
{
	u64 slack = bytes >= align ? align : 0, total, head;
	u8 *all;

	if (!add_ok(bytes, slack, &total))
		return NULL;
	all = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all == MAP_FAILED)
		return NULL;
	head = slack ? align_up((u64)(uintptr_t)all, align) - (u64)(uintptr_t)all : 0;
	if (mmap(all + head, bytes, PROT_READ | PROT_WRITE,
		 MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd,
		 0) == MAP_FAILED) {
		int error = errno;

		munmap(all, total);
		errno = error;
		return NULL;
	}
	if (head)
		munmap(all, head);
	if (slack - head)
		munmap(all + head + bytes, slack - head);
	return all + head;
}

/* A file without a name in the directory. */
static int open_file(const char *dir, struct error *err)
{
	AUTO_FREE char *name = xasprintf("%s/cowvm-ram.XXXXXX", dir);
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd >= 0 ? fd
			       : err_set_errno(err, -errno,
					       "can't open backing store %s for guest RAM", dir);
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(err, -errno, "can't create backing store in %s for guest RAM",
				     dir);
	unlink(name);
	return fd;
}

/* Its page size, and whether there is room: a page that finds none kills the guest. */
static int look_at_file_system(struct mem_host *h, const char *dir, struct error *err)
{
	struct statfs fs;
	u64 room;

	if (fstatfs(h->fd, &fs) < 0)
		return err_set_errno(err, -errno, "%s", dir);
	if (fs.f_type == HUGETLBFS_MAGIC)
		h->page_bytes = (u64)fs.f_bsize;
	if (h->bytes % h->page_bytes)
		return err_set(err, -EINVAL,
			       "%s: memory of %llu bytes is no multiple of its pages of %llu bytes",
			       dir, (unsigned long long)h->bytes,
			       (unsigned long long)h->page_bytes);
	if (fs.f_type == HUGETLBFS_MAGIC || !mul_ok(fs.f_bavail, (u64)fs.f_bsize, &room))
		return 0; /* the kernel keeps count */
	if (fs.f_blocks && room < h->bytes)
		return err_set(err, -ENOSPC, "%s has room for %llu MiB, guest memory is %llu MiB",
			       dir, (unsigned long long)(room / MiB),
			       (unsigned long long)(h->bytes / MiB));
	return 0;
}

static int make_file(struct mem_host *h, const char *dir, struct error *err)
{
	int ret = open_file(dir, err);

	if (ret < 0)
		return ret;
	h->fd = ret;
	ret = look_at_file_system(h, dir, err);
	if (ret == 0 && ftruncate(h->fd, (off_t)h->bytes) < 0)
		ret = err_set_errno(err, -errno, "%s: cannot make a file of %llu MiB", dir,
				    (unsigned long long)(h->bytes / MiB));
	return ret;
}

static void advise(const struct mem_host *h, const struct mem_backing *b)
{
	/* Each is a wish: a kernel that cannot fulfil it goes on without. */
	if (h->page_bytes == PAGE_BYTES && h->bytes >= HUGE_BYTES)
		(void)madvise(h->host, h->bytes, MADV_HUGEPAGE);
	if (b->merge)
		(void)madvise(h->host, h->bytes, MADV_MERGEABLE);
	if (b->no_core)
		(void)madvise(h->host, h->bytes, MADV_DONTDUMP);
}

/* --- all of it at once ---------------------------------------------------------------- */

struct populate {
	u8 *host;
	u64 bytes;
	u64 next, done; /* [atomic] */
	int result;	/* [atomic] the first error */
};

/* Pages are touched by the kernel, which returns an error where a write of ours would
 * be answered by a signal. */
static void *populate_thread(void *arg)
{
	struct populate *p = arg;

	while (!__atomic_load_n(&p->result, __ATOMIC_RELAXED)) {
		u64 at = __atomic_fetch_add(&p->next, POPULATE_BYTES, __ATOMIC_RELAXED);
		u64 n;

		if (at >= p->bytes)
			break;
		n = MIN(p->bytes - at, (u64)POPULATE_BYTES);
		if (madvise(p->host + at, n, MADV_POPULATE_WRITE) < 0)
			__atomic_store_n(&p->result, -errno, __ATOMIC_RELAXED);
		else
			__atomic_fetch_add(&p->done, n, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void watch_progress(struct populate *p)
{
	u64 said = now_ns(), done;

	while ((done = __atomic_load_n(&p->done, __ATOMIC_RELAXED)) < p->bytes &&
	       !__atomic_load_n(&p->result, __ATOMIC_RELAXED)) {
		usleep(2000);
		if (now_ns() - said < PROGRESS_NS)
			continue;
		said = now_ns();
		log_info("guest memory: %llu of %llu MiB", (unsigned long long)(done / MiB),
			 (unsigned long long)(p->bytes / MiB));
	}
}

/* KiB under a name in /proc/meminfo; 0: it is not there. */
static u64 meminfo(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) : 0;
}

/* Does it fit?  The kernel would rather end a process than say no. */
static int check_free(const struct mem_host *h, struct error *err)
{
	char text[4096];
	int fd = sys_open("/proc/meminfo", O_RDONLY | O_CLOEXEC, 0);
	s64 n = fd < 0 ? fd : sys_pread(fd, text, sizeof(text) - 1, 0);
	u64 there;

	if (fd >= 0)
		sys_close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	there = (meminfo(text, "MemAvailable:") + meminfo(text, "SwapFree:")) * KiB;
	if (h->page_bytes != PAGE_BYTES || !there || there >= h->bytes)
		return 0;
	return err_set(err, -ENOMEM,
		       "cannot preallocate %llu MiB of guest memory: the host has %llu MiB left",
		       (unsigned long long)(h->bytes / MiB), (unsigned long long)(there / MiB));
}

static int populate(const struct mem_host *h, struct error *err)
{
	struct populate p = {.host = h->host, .bytes = h->bytes};
	pthread_t threads[POPULATE_THREADS];
	struct error ignored;
	unsigned n = 0;
	int ret = check_free(h, err);

	if (ret < 0)
		return ret;
	while (n < MIN((u64)POPULATE_THREADS, DIV_ROUND_UP(p.bytes, POPULATE_BYTES)) &&
	       thread_start(&threads[n], "populate", populate_thread, &p, &ignored) == 0)
		n++;
	if (n)
		watch_progress(&p);
	else
		populate_thread(&p);
	while (n)
		pthread_join(threads[--n], NULL);
	/* Pages that cannot be had: -EFAULT of a file, where a write would get SIGBUS. */
	if (p.result == -EFAULT)
		p.result = -ENOMEM;
	if (p.result < 0 && p.result != -EINVAL) /* kernels before 5.14: as it comes */
		return err_set_errno(err, p.result, "cannot preallocate %llu MiB of guest memory",
				     (unsigned long long)(p.bytes / MiB));
	return 0;
}

/* --- life ----------------------------------------------------------------------------- */

int mem_host_map(struct mem_host *h, const struct mem_place *place,
		 const struct mem_backing *backing, struct error *err)
{
	const char *path = backing ? backing->path : NULL;
	int ret = 0;

	*h = (struct mem_host){.bytes = place->bytes, .fd = -1, .page_bytes = PAGE_BYTES};
	if (path)
		ret = make_file(h, path, err);
	if (ret < 0)
		goto out;
	h->host = map_aligned(h->bytes, MAX(HUGE_BYTES, h->page_bytes), h->fd);
	if (!h->host && path)
		ret = err_set_errno(err, -errno, "unable to map backing store for guest RAM");
	else if (!h->host)
		ret = err_set(err, -ENOMEM, "cannot set up %llu MiB of guest memory for %s",
			      (unsigned long long)(place->bytes / MiB), place->name);
	if (ret < 0)
		goto out;
	if (backing)
		advise(h, backing);
	if (backing && backing->prealloc)
		ret = populate(h, err);
out:
	if (ret < 0)
		mem_host_unmap(h);
	return ret;
}

void mem_host_unmap(struct mem_host *h)
{
	if (h->host)
		munmap(h->host, h->bytes);
	if (h->fd >= 0)
		close(h->fd);
	h->host = NULL;
	h->fd = -1;
}

int mem_host_discard(const struct mem_host *h, u8 *host, u64 bytes)
{
	if (!is_aligned((u64)(host - h->host) | bytes, h->page_bytes))
		return -EINVAL; /* part of a huge page */
	return madvise(host, bytes, h->fd < 0 ? MADV_DONTNEED : MADV_REMOVE) < 0 ? -errno : 0;
}
