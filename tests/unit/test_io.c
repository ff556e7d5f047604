/* io_* on both backends: transfers, ends of files, errors, groups, many fibers. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io_cached.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <unistd.h>

static int temp_fd(void)
{
	char name[] = "/tmp/test_io_XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	unlink(name);
	return fd;
}

static u8 pattern(u64 i)
{
	return (u8)(i * 7 + (i >> 8));
}

static void fill(u8 *buf, u64 start, u64 bytes)
{
	for (u64 i = 0; i < bytes; i++)
		buf[i] = pattern(start + i);
}

/* --- plain transfers -------------------------------------------------------- */

static void write_then_read(struct fiber *f, void *arg)
{
	u8 out[3000], in[3000] = {0};
	struct iovec w[] = {{out, 1}, {out + 1, 0}, {out + 1, 1999}, {out + 2000, 1000}};
	struct iovec r[] = {{in, 1500}, {in + 1500, 1500}};
	int fd = temp_fd();

	fill(out, 0, sizeof(out));
	assert_int_equal(io_writev(f, fd, w, 4, 12345), 3000);
	assert_int_equal(io_datasync(f, fd), 0);
	assert_int_equal(io_readv(f, fd, r, 2, 12345), 3000);
	assert_memory_equal(in, out, sizeof(in));
	close(fd);
}

static void what_was_written_is_read_back(void **state)
{
	assert_int_equal(loop_run_fiber(*state, write_then_read, NULL), 0);
}

static void read_past_end(struct fiber *f, void *arg)
{
	u8 out[1000], in[3000];
	struct iovec w = {out, sizeof(out)}, r = {in, sizeof(in)};
	struct iovec none = {in, 0};
	int fd = temp_fd();

	fill(out, 0, sizeof(out));
	assert_int_equal(io_writev(f, fd, &w, 1, 0), 1000);
	assert_int_equal(io_readv(f, fd, &r, 1, 0), 1000);
	assert_int_equal(io_readv(f, fd, &r, 1, 400), 600);
	assert_memory_equal(in, out + 400, 600);
	assert_int_equal(io_readv(f, fd, &r, 1, 1000), 0);
	assert_int_equal(io_readv(f, fd, &none, 1, 0), 0);
	assert_int_equal(io_readv(f, fd, &r, 0, 0), 0);
	close(fd);
}

static void reads_end_at_the_end_of_the_file(void **state)
{
	assert_int_equal(loop_run_fiber(*state, read_past_end, NULL), 0);
}

static void use_long_vector(struct fiber *f, void *arg)
{
	enum { N = 3 * IOV_MAX + 7 };
	u8 *out = xnew_n(u8, 4 * N), *in = xnew_n(u8, 4 * N);
	struct iovec *iov = xnew_n(struct iovec, N);
	int fd = temp_fd();

	fill(out, 0, 4 * N);
	for (unsigned i = 0; i < N; i++)
		iov[i] = (struct iovec){out + 4 * i, 4};
	assert_int_equal(io_writev(f, fd, iov, N, 0), 4 * N);
	for (unsigned i = 0; i < N; i++)
		iov[i].iov_base = in + 4 * i;
	assert_int_equal(io_readv(f, fd, iov, N, 0), 4 * N);
	assert_memory_equal(in, out, 4 * N);
	close(fd);
	free(iov);
	free(in);
	free(out);
}

static void vectors_longer_than_one_system_call_takes_work(void **state)
{
	assert_int_equal(loop_run_fiber(*state, use_long_vector, NULL), 0);
}

/* A pipe gives what it has: transfers come back short again and again.  (Pipes
 * ignore offsets only at the current position, so this uses a size limit.) */
static void write_to_limit(struct fiber *f, void *arg)
{
	u8 buf[8192] = {0};
	struct iovec iov[] = {{buf, 5000}, {buf + 5000, 3192}};
	int fd = memfd_create("limited", MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_true(io_writev(f, fd, iov, 2, 0) < 0);
	assert_int_equal(io_writev(f, fd, iov, 1, 4096), -EPERM);
	close(fd);
}

static void a_write_that_does_not_fit_fails_as_a_whole(void **state)
{
	assert_int_equal(loop_run_fiber(*state, write_to_limit, NULL), 0);
}

/* --- errors ----------------------------------------------------------------- */

static void use_bad_descriptors(struct fiber *f, void *arg)
{
	u8 b[512] = {0};
	struct iovec iov = {b, sizeof(b)};
	int fd = open("/dev/full", O_RDWR | O_CLOEXEC), ro = open("/dev/zero", O_RDONLY);

	assert_int_equal(io_readv(f, -1, &iov, 1, 0), -EBADF);
	assert_int_equal(io_writev(f, ro, &iov, 1, 0), -EBADF);
	assert_int_equal(io_writev(f, fd, &iov, 1, 0), -ENOSPC);
	assert_int_equal(io_datasync(f, -1), -EBADF);
	assert_int_equal(io_fallocate(f, -1, 0, 0, 1), -EBADF);
	close(ro);
	close(fd);
}

static void errors_come_back_as_negative_errno(void **state)
{
	assert_int_equal(loop_run_fiber(*state, use_bad_descriptors, NULL), 0);
}

static void punch(struct fiber *f, void *arg)
{
	enum { BYTES = 12288 };
	u8 *out = xnew_n(u8, BYTES), *in = xnew_n(u8, BYTES);
	struct iovec w = {out, BYTES}, r = {in, BYTES};
	int fd = temp_fd();

	memset(out, 0xa5, BYTES);
	assert_int_equal(io_writev(f, fd, &w, 1, 0), BYTES);
	assert_int_equal(
		io_fallocate(f, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	memset(out + 4096, 0, 4096);
	assert_int_equal(io_readv(f, fd, &r, 1, 0), BYTES);
	assert_memory_equal(in, out, BYTES);
	close(fd);
	free(in);
	free(out);
}

static void fallocate_punches_holes(void **state)
{
	assert_int_equal(loop_run_fiber(*state, punch, NULL), 0);
}

/* --- groups ----------------------------------------------------------------- */

#define GROUP  700 /* more than a ring holds */
#define SECTOR 512

static void use_groups(struct fiber *f, void *arg)
{
	u8 *out = xnew_n(u8, GROUP * SECTOR), *in = xnew_n(u8, (GROUP + 2) * SECTOR);
	struct iovec iov[GROUP + 2];
	struct io_group g;
	int fd = temp_fd();

	fill(out, 0, GROUP * SECTOR);
	io_group_init(f, &g);
	for (unsigned i = 0; i < GROUP; i++) {
		iov[i] = (struct iovec){out + i * SECTOR, SECTOR};
		io_group_writev(&g, fd, &iov[i], 1, i * SECTOR);
	}
	assert_int_equal(io_group_wait(f, &g), 0);
	memset(in, 0xee, (GROUP + 2) * SECTOR);
	io_group_init(f, &g);
	for (unsigned i = 0; i < GROUP + 2; i++) {
		iov[i] = (struct iovec){in + i * SECTOR, SECTOR};
		io_group_readv(&g, fd, &iov[i], 1, i * SECTOR);
	}
	assert_int_equal(io_group_wait(f, &g), 0);
	assert_memory_equal(in, out, GROUP * SECTOR);
	for (unsigned i = GROUP * SECTOR; i < (GROUP + 2) * SECTOR; i++)
		assert_int_equal(in[i], 0); /* beyond the end */
	close(fd);
	free(in);
	free(out);
}

static void a_group_runs_more_transfers_than_the_ring_holds(void **state)
{
	assert_int_equal(loop_run_fiber(*state, use_groups, NULL), 0);
}

static void group_with_error(struct fiber *f, void *arg)
{
	u8 b[SECTOR] = {0}, c[SECTOR];
	struct iovec out = {b, SECTOR}, in = {c, SECTOR};
	struct io_group g;
	int fd = temp_fd();

	memset(c, 0xee, sizeof(c));
	assert_int_equal(io_writev(f, fd, &out, 1, 0), SECTOR);
	io_group_init(f, &g);
	io_group_readv(&g, -1, &in, 1, 0);
	io_group_readv(&g, fd, &in, 1, 0);
	assert_int_equal(io_group_wait(f, &g), -EBADF);
	assert_memory_equal(c, b, SECTOR); /* the others are finished, not abandoned */
	io_group_init(f, &g);
	assert_int_equal(io_group_wait(f, &g), 0);
	close(fd);
}

static void a_group_reports_its_first_error_after_all_are_done(void **state)
{
	assert_int_equal(loop_run_fiber(*state, group_with_error, NULL), 0);
}

/* --- many fibers ------------------------------------------------------------ */

struct many {
	int fd;
	unsigned next, done;
};

static void one_of_many(struct fiber *f, void *arg)
{
	struct many *m = arg;
	u64 goff = m->next++ * SECTOR;
	u8 out[SECTOR], in[SECTOR];
	struct iovec w = {out, SECTOR}, r = {in, SECTOR};

	fill(out, goff, SECTOR);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(io_writev(f, m->fd, &w, 1, goff), SECTOR);
		memset(in, 0, SECTOR);
		assert_int_equal(io_readv(f, m->fd, &r, 1, goff), SECTOR);
		assert_memory_equal(in, out, SECTOR);
	}
	m->done++;
}

static void many_write_and_read(struct fiber *f, void *arg)
{
	struct many m = {.fd = temp_fd()};

	for (unsigned i = 0; i < 400; i++)
		assert_int_equal(fiber_spawn(fiber_loop(f), one_of_many, &m), 0);
	while (m.done < 400)
		fiber_sleep_ns(f, NS_PER_MS);
	close(m.fd);
}

static void hundreds_of_fibers_do_their_own_transfers(void **state)
{
	assert_int_equal(loop_run_fiber(*state, many_write_and_read, NULL), 0);
}

/* --- files in the page cache -------------------------------------------------- */

#define LARGE (128 * KiB) /* more than is done on the spot */

struct cached {
	struct io_cached file;
	unsigned next, done;
	u64 fits; /* what lies beyond is refused */
};

static void write_large(struct fiber *f, void *arg)
{
	struct cached *c = arg;
	u64 goff = (u64)c->next++ * LARGE;
	u8 *out = xnew_n(u8, LARGE), *in = xnew_n(u8, LARGE);
	struct iovec w[] = {{out, 1000}, {out + 1000, LARGE - 1000}}, r = {in, LARGE};
	bool fits = goff + LARGE <= c->fits;

	fill(out, goff, LARGE);
	assert_int_equal(io_cached_writev(f, &c->file, w, 2, goff), fits ? (s64)LARGE : -EPERM);
	assert_int_equal(io_cached_readv(f, &c->file, &r, 1, goff), fits ? (s64)LARGE : 0);
	if (fits)
		assert_memory_equal(in, out, LARGE);
	free(in);
	free(out);
	c->done++;
}

/* So many at once that the writer finds neighbours to join. */
static void write_all_large(struct fiber *f, struct cached *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(fiber_spawn(fiber_loop(f), write_large, c), 0);
	while (c->done < n)
		fiber_sleep_ns(f, NS_PER_MS);
	io_cached_fini(&c->file);
	close(c->file.fd);
}

static void cached_neighbours(struct fiber *f, void *arg)
{
	struct cached c = {.fits = UINT64_MAX};

	io_cached_init(&c.file, temp_fd());
	write_all_large(f, &c, 40);
}

static void large_cached_writes_side_by_side_reach_their_places(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cached_neighbours, NULL), 0);
}

static void cached_up_to_limit(struct fiber *f, void *arg)
{
	struct cached c = {.fits = 5 * LARGE};
	int fd = memfd_create("limited", MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, (off_t)c.fits), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	io_cached_init(&c.file, fd);
	write_all_large(f, &c, 16);
}

static void of_joined_writes_only_those_fail_that_do_not_fit(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cached_up_to_limit, NULL), 0);
}

static void cached_small(struct fiber *f, void *arg)
{
	u8 out[3000], in[3000] = {0};
	struct iovec w = {out, 3000}, r[] = {{in, 7}, {in + 7, 2993}};
	struct io_cached c;

	io_cached_init(&c, temp_fd());
	fill(out, 5, sizeof(out));
	for (unsigned slow = 0; slow < 2; slow++) {
		c.slow_until_ns = slow ? now_ns() + 60 * NS_PER_SEC : 0;
		assert_int_equal(io_cached_writev(f, &c, &w, 1, 5 + slow * 8000ull), 3000);
		assert_int_equal(io_cached_readv(f, &c, r, 2, 5 + slow * 8000ull), 3000);
		assert_memory_equal(in, out, sizeof(in));
		memset(in, 0, sizeof(in));
		/* The end of the file is in the middle of it. */
		assert_int_equal(io_cached_readv(f, &c, r, 2, 2005 + slow * 8000ull), 1000);
	}
	assert_int_equal(io_cached_readv(f, &c, r, 2, 1 * MiB), 0);
	io_cached_fini(&c);
	close(c.fd);
}

static void small_cached_transfers_work_whether_writing_is_slow_or_not(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cached_small, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(what_was_written_is_read_back), X(reads_end_at_the_end_of_the_file),                     \
		X(vectors_longer_than_one_system_call_takes_work),                                 \
		X(a_write_that_does_not_fit_fails_as_a_whole),                                     \
		X(errors_come_back_as_negative_errno), X(fallocate_punches_holes),                 \
		X(a_group_runs_more_transfers_than_the_ring_holds),                                \
		X(a_group_reports_its_first_error_after_all_are_done),                             \
		X(hundreds_of_fibers_do_their_own_transfers),                                      \
		X(large_cached_writes_side_by_side_reach_their_places),                            \
		X(of_joined_writes_only_those_fail_that_do_not_fit),                               \
		X(small_cached_transfers_work_whether_writing_is_slow_or_not)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
