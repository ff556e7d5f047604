/* Comparing ranges of images; see same.h.  Thread: the loop's, and the pool's for
 * what lies in host files. */
#include "block/same.h"

#include "base/io.h"
#include "base/pool.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>

size_t same_bytes(const u8 *a, const u8 *b, size_t bytes)
{
	if (!memcmp(a, b, bytes))
		return bytes;
	for (size_t at = 0; at < bytes; at += SAME_SECTOR)
		if (memcmp(a + at, b + at, MIN(bytes - at, (size_t)SAME_SECTOR)))
			return at;
	return bytes;
}

static bool is_zero(const u8 *p, size_t bytes)
{
	return !bytes || (!p[0] && !memcmp(p, p + 1, bytes - 1));
}

size_t zero_bytes(const u8 *a, size_t bytes)
{
	if (is_zero(a, bytes))
		return bytes;
	for (size_t at = 0; at < bytes; at += SAME_SECTOR)
		if (!is_zero(a + at, MIN(bytes - at, (size_t)SAME_SECTOR)))
			return at;
	return bytes;
}

/* Bytes of the host file, as they are? */
static bool is_plain(const struct same_side *s)
{
	const struct map_extent *m = &s->map;

	if (!s->img)
		return true;
	if (!(m->kind & MAP_HOFF) || m->kind & MAP_COMPRESSED || m->file->driver != &file_driver)
		return false;
	return file_is_buffered(m->file);
}

static u64 size_of_piece(const struct same *s, u64 at)
{
	return MIN(s->bytes - at, (u64)SAME_PIECE);
}

/* What two pieces in memory have in common; a side that is zeros has none. */
static u64 compare_piece(struct same *s, u64 bytes)
{
	if (!s->a.img || !s->b.img)
		return zero_bytes(s->a.img ? s->a.buf : s->b.buf, bytes);
	return same_bytes(s->a.buf, s->b.buf, bytes);
}

static int pread_side(struct same_side *s, u64 at, u64 bytes)
{
	s64 got;

	if (!s->img)
		return 0;
	got = sys_pread(file_fd(s->map.file), s->buf, bytes, s->map.hoff + at);
	if (got < 0)
		return s->error = (int)got;
	memset(s->buf + got, 0, bytes - (u64)got);
	return 0;
}

static int compare_plain(void *arg)
{
	struct same *s = arg;

	for (u64 at = 0, same; at < s->bytes; at += same) {
		u64 bytes = size_of_piece(s, at);

		if (pread_side(&s->a, at, bytes) < 0 || pread_side(&s->b, at, bytes) < 0)
			return s->a.error ? s->a.error : s->b.error;
		same = compare_piece(s, bytes);
		if (same < bytes) {
			s->differs = at + same;
			break;
		}
	}
	return 0;
}

static int read_side(struct fiber *f, struct same_side *s, u64 at, u64 bytes)
{
	return s->img ? s->error = image_pread(f, s->img, s->goff + at, s->buf, bytes) : 0;
}

int same_compare(struct fiber *f, struct same *s)
{
	s->differs = s->bytes;
	s->a.error = s->b.error = 0;
	if (is_plain(&s->a) && is_plain(&s->b))
		return pool_call(f, compare_plain, s);
	for (u64 at = 0, same; at < s->bytes; at += same) {
		u64 bytes = size_of_piece(s, at);

		if (read_side(f, &s->a, at, bytes) < 0 || read_side(f, &s->b, at, bytes) < 0)
			return s->a.error ? s->a.error : s->b.error;
		same = compare_piece(s, bytes);
		if (same < bytes) {
			s->differs = at + same;
			break;
		}
	}
	return 0;
}
