/* Guest memory as a row of units; see ram.h. */
#include "vmm/snapshot/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MAX_INFO   64
#define PAGE_BITS  12
#define UNIT_PAGES (1u << (RAM_UNIT_BITS - PAGE_BITS))

/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst: a word for each page. */
#define PAGE_SWAPPED ((u64)1 << 62)
#define PAGE_PRESENT ((u64)1 << 63)
#define LOOK_UNITS   64u /* at a time */

/* By name: addresses may change while the machine runs. */
static int by_name(const void *a, const void *b)
{
	const struct mem_region_info *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int ram_map_init(struct ram_map *map, struct mem *mem, struct error *err)
{
	struct mem_region_info info[MAX_INFO];
	unsigned n = mem_regions(mem, info, MAX_INFO);

	*map = (struct ram_map){.mem = mem, .anonymous = true};
	assert(n <= MAX_INFO);
	qsort(info, n, sizeof(info[0]), by_name);
	for (unsigned i = 0; i < n; i++) {
		struct ram_range *r = &map->ranges[map->n];

		if (info[i].alias)
			continue;
		if (map->n == RAM_MAX_RANGES)
			return err_set(err, -E2BIG, "more than %u pieces of guest memory",
				       RAM_MAX_RANGES);
		r->region = info[i].region;
		r->host = mem_region_host(r->region);
		r->bytes = info[i].bytes;
		r->first = map->units;
		map->anonymous &= mem_region_is_anonymous(r->region);
		map->units += DIV_ROUND_UP(r->bytes, RAM_UNIT);
		map->n++;
	}
	map->dirty = try_alloc(ram_bitmap_bytes(map));
	if (!map->dirty)
		return err_set(err, -ENOMEM, "no memory to track %llu units of RAM",
			       (unsigned long long)map->units);
	memset(map->dirty, 0xff, ram_bitmap_bytes(map));
	return 0;
}

void ram_map_fini(struct ram_map *map)
{
	free(map->dirty);
	map->dirty = NULL;
}

static const struct ram_range *range_of(const struct ram_map *map, u64 unit)
{
	u32 i = map->n;

	while (i-- > 0)
		if (unit >= map->ranges[i].first)
			return &map->ranges[i];
	return NULL;
}

u8 *ram_unit(const struct ram_map *map, u64 unit, u64 *bytes)
{
	const struct ram_range *r = range_of(map, unit);
	u64 off = (unit - r->first) * RAM_UNIT;

	assert(unit < map->units && off < r->bytes);
	*bytes = MIN(RAM_UNIT, r->bytes - off);
	return r->host + off;
}

int ram_empty(const struct ram_map *map, u64 unit, u64 n)
{
	const struct ram_range *r = range_of(map, unit);
	u64 off = (unit - r->first) * RAM_UNIT;

	return mem_region_empty(r->region, r->host + off, MIN(n * RAM_UNIT, r->bytes - off));
}

int ram_can_be_watched(const struct ram_map *map, struct error *err)
{
	return map->anonymous ? 0 : err_set(err, -EINVAL, "guest memory lies in a file");
}

u64 ram_unit_of(const struct ram_map *map, const u8 *host)
{
	for (u32 i = 0; i < map->n; i++) {
		const struct ram_range *r = &map->ranges[i];

		if (host >= r->host && host < r->host + r->bytes)
			return r->first + (u64)(host - r->host) / RAM_UNIT;
	}
	return UINT64_MAX;
}

/* --- dirty units ---------------------------------------------------------------- */

int ram_track(struct ram_map *map, bool on)
{
	int ret = 0;

	for (u32 i = 0; ret == 0 && i < map->n; i++)
		ret = mem_dirty_log(map->ranges[i].region, MEM_DIRTY_SNAPSHOT, on);
	map->tracking = on && ret == 0;
	if (!map->tracking)
		memset(map->dirty, 0xff, ram_bitmap_bytes(map));
	return ret;
}

typedef int collect_fn(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap);

static int collect_range(const struct ram_range *r, collect_fn *fn, u64 *into)
{
	u64 pages = r->bytes >> PAGE_BITS;
	AUTO_FREE u64 *bitmap = try_alloc(DIV_ROUND_UP(pages, 64) * sizeof(u64));
	int ret;

	if (!bitmap)
		return -ENOMEM;
	ret = fn(r->region, MEM_DIRTY_SNAPSHOT, bitmap);
	if (ret < 0)
		return ret;
	/* A word of pages is a few whole units. */
	for (u64 w = 0; w < DIV_ROUND_UP(pages, 64); w++)
		for (u32 k = 0; bitmap[w] && k < 64 / UNIT_PAGES; k++)
			if (bitmap[w] >> (k * UNIT_PAGES) & ((1u << UNIT_PAGES) - 1))
				ram_set_bit(into, r->first + w * (64 / UNIT_PAGES) + k);
	return 0;
}

static int collect(struct ram_map *map, collect_fn *fn, u64 *into)
{
	int ret = 0;

	assert(map->tracking);
	for (u32 i = 0; ret == 0 && i < map->n; i++)
		ret = collect_range(&map->ranges[i], fn, into);
	return ret;
}

int ram_collect(struct ram_map *map, u64 *into)
{
	return collect(map, mem_dirty_collect, into);
}

int ram_look(struct ram_map *map, u64 *into)
{
	return collect(map, mem_dirty_look, into);
}

u64 ram_run_in_range(const struct ram_map *map, u64 unit, u64 most)
{
	const struct ram_range *r = range_of(map, unit);

	return MIN(most, r->first + DIV_ROUND_UP(r->bytes, RAM_UNIT) - unit);
}

u64 ram_next_run(const struct ram_map *map, const u64 *bits, u64 *at, u64 most)
{
	u64 i = *at, n = 1;

	while (i < map->units && !ram_bit(bits, i))
		i = bits[i / 64] >> (i % 64) ? i + 1 : align_down(i, 64) + 64;
	*at = i;
	if (i >= map->units)
		return 0;
	most = ram_run_in_range(map, i, most);
	while (n < most && ram_bit(bits, i + n))
		n++;
	return n;
}

/* --- memory that is not there ------------------------------------------------------- */

/* Look at n units, one after the other. */
static bool look(int fd, const struct ram_map *map, u64 unit, u64 n, u64 *into)
{
	u64 pages[LOOK_UNITS * UNIT_PAGES], bytes;
	u64 first = (u64)(uintptr_t)ram_unit(map, unit, &bytes) >> PAGE_BITS;
	ssize_t got = pread(fd, pages, n * UNIT_PAGES * sizeof(u64), (off_t)(first * sizeof(u64)));

	if (got != (ssize_t)(n * UNIT_PAGES * sizeof(u64)))
		return false;
	for (u64 i = 0; i < n; i++) {
		u64 all = 0;

		for (u32 k = 0; k < UNIT_PAGES; k++)
			all |= pages[i * UNIT_PAGES + k];
		if (!(all & (PAGE_PRESENT | PAGE_SWAPPED)))
			ram_set_bit(into, unit + i);
	}
	return true;
}

void ram_untouched(const struct ram_map *map, const u64 *of, u64 *into)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	u64 n;

	if (fd < 0)
		return;
	for (u64 at = 0; (n = ram_next_run(map, of, &at, LOOK_UNITS)); at += n) {
		u64 bytes;

		(void)ram_unit(map, at + n - 1, &bytes);
		n -= bytes < RAM_UNIT; /* the end of a range */
		if (n && !look(fd, map, at, n, into))
			break;
		n += bytes < RAM_UNIT;
	}
	close(fd);
}
