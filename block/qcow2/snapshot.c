/* The table of internal snapshots: reading, judging and building it.
 *
 * QEMU's docs/interop/qcow2, "Snapshots".  Extra data may be missing (version 2),
 * short, or longer than what we know: then the rest is kept as it is.  Places and
 * sizes of snapshots' L1 tables are judged where they are used, so that a bad one
 * can be listed.  Thread: the image's loop. */
#include "block/qcow2/snapshot.h"

#include "base/opts.h"
#include "block/qcow2/parts.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define KNOWN_EXTRA 24
#define WINDOW	    (256 * KiB) /* more than the largest entry */

/* Part of the table in memory. */
struct window {
	struct qcow2 *q;
	u8 *data;
	u64 start, end; /* bytes of the table */
};

static int look_at(struct fiber *f, struct window *w, u64 at, u64 bytes, const u8 **out)
{
	u64 hoff = be64_get(w->q->head.snapshots_hoff);
	int ret;

	assert(bytes <= WINDOW);
	if (at < w->start || at + bytes > w->end) {
		ret = qcow2_pread(f, w->q->img.below, hoff + at, w->data, WINDOW);
		if (ret < 0)
			return ret;
		w->start = at;
		w->end = at + WINDOW;
	}
	*out = w->data + (at - w->start);
	return 0;
}

static char *copy_bytes(const u8 *from, u32 n)
{
	char *s = try_alloc(n + 1ull);

	if (s)
		memcpy(s, from, n);
	return s;
}

static void take_extra(struct qcow2_snapshot *s, const u8 *extra, u32 bytes)
{
	s->icount = QCOW2_NO_ICOUNT;
	if (bytes >= 8)
		s->vm_state_bytes = load_be64(extra);
	if (bytes >= 16)
		s->disk_bytes = load_be64(extra + 8);
	if (bytes >= 24)
		s->icount = load_be64(extra + 16);
}

/* The entry's parts behind the fixed one, extra data first. */
static int take_parts(struct qcow2_snapshot *s, const u8 *p, u32 extra)
{
	take_extra(s, p, extra);
	if (extra > KNOWN_EXTRA) {
		s->unknown_bytes = extra - KNOWN_EXTRA;
		s->unknown = (u8 *)copy_bytes(p + KNOWN_EXTRA, s->unknown_bytes);
	}
	return extra > KNOWN_EXTRA && !s->unknown ? -ENOMEM : 0;
}

static int take_names(struct fiber *f, struct window *w, u64 at, struct qcow2_snapshot *s)
{
	const u8 *p;
	int ret = look_at(f, w, at, s->id_bytes + s->name_bytes, &p);

	if (ret < 0)
		return ret;
	s->id = copy_bytes(p, s->id_bytes);
	s->name = copy_bytes(p + s->id_bytes, s->name_bytes);
	return s->id && s->name ? 0 : -ENOMEM;
}

/* One entry at byte *at of the table; moves *at behind it. */
static int load_one(struct fiber *f, struct window *w, u64 *at, struct qcow2_snapshot *s)
{
	struct disk_snapshot d;
	const u8 *p;
	u32 extra;
	int ret = look_at(f, w, *at, sizeof(d) + QCOW2_MAX_SNAPSHOT_EXTRA, &p);

	if (ret < 0)
		return ret;
	memcpy(&d, p, sizeof(d)); /* a bad image puts it anywhere */
	*s = (struct qcow2_snapshot){
		.id_bytes = be16_get(d.id_bytes),
		.name_bytes = be16_get(d.name_bytes),
		.date_sec = be32_get(d.date_sec),
		.date_nsec = be32_get(d.date_nsec),
		.vm_clock_ns = be64_get(d.vm_clock_ns),
		.vm_state_bytes = be32_get(d.vm_state_bytes),
		.disk_bytes = w->q->img.bytes,
		.l1_hoff = be64_get(d.l1_hoff),
		.l1_entries = be32_get(d.l1_entries),
		.extra_bytes = be32_get(d.extra_bytes),
	};
	extra = MIN(s->extra_bytes, (u32)QCOW2_MAX_SNAPSHOT_EXTRA);
	ret = take_parts(s, p + sizeof(d), extra);
	if (ret == 0)
		ret = take_names(f, w, *at + sizeof(d) + s->extra_bytes, s);
	*at += align_up(sizeof(d) + (u64)s->extra_bytes + s->id_bytes + s->name_bytes, 8);
	return ret;
}

static int load_all(struct fiber *f, struct qcow2 *q, struct window *w, struct error *err)
{
	u64 at = 0;

	for (u32 i = 0; i < q->snapshot_count; i++) {
		struct qcow2_snapshot *s = &q->snapshots[i];
		int ret = load_one(f, w, &at, s);

		if (ret < 0)
			return err_set_errno(err, ret, "Could not read the snapshot table");
		if (s->extra_bytes > QCOW2_MAX_SNAPSHOT_EXTRA && !q->check_only)
			return err_set(err, -EFBIG,
				       "Too much extra metadata in snapshot table entry %u\nYou "
				       "can force-remove this extra metadata with cowimg check "
				       "-r all",
				       i);
		if (at <= QCOW2_MAX_SNAPSHOT_BYTES)
			continue;
		if (!q->check_only)
			return err_set(err, -EFBIG,
				       "Snapshot table is too large\nYou can force-remove all %u "
				       "overhanging snapshots with cowimg check -r all",
				       q->snapshot_count - i);
		q->snapshots_cut += q->snapshot_count - i;
		snapshots_free(s, 1);
		q->snapshot_count = i;
		return 0;
	}
	q->snapshot_bytes = at;
	return 0;
}

int snapshots_load(struct fiber *f, struct qcow2 *q, struct error *err)
{
	struct window w = {.q = q};
	int ret;

	q->snapshot_bytes = 0;
	if (!q->snapshot_count)
		return 0;
	q->snapshots = try_alloc(q->snapshot_count * sizeof(*q->snapshots));
	w.data = try_alloc(WINDOW);
	if (q->snapshots && w.data)
		ret = load_all(f, q, &w, err);
	else
		ret = err_set(err, -ENOMEM, "Could not allocate the snapshot list");
	free(w.data);
	return ret;
}

void snapshots_free(struct qcow2_snapshot *s, u32 n)
{
	for (u32 i = 0; s && i < n; i++) {
		free(s[i].id);
		free(s[i].name);
		free(s[i].unknown);
		s[i].id = s[i].name = NULL;
		s[i].unknown = NULL;
	}
}

bool snapshot_l1_is_sound(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
	return s->l1_entries <= QCOW2_MAX_L1_BYTES / 8 && s->l1_hoff < QCOW2_MAX_HOFF &&
	       is_aligned(s->l1_hoff, q->cluster_bytes);
}

/* --- building --- */

static u64 entry_bytes(const struct qcow2_snapshot *s)
{
	return align_up(sizeof(struct disk_snapshot) + KNOWN_EXTRA + s->unknown_bytes +
				s->id_bytes + s->name_bytes,
			8);
}

static void put_entry(u8 *to, const struct qcow2_snapshot *s)
{
	struct disk_snapshot d = {
		.l1_hoff = be64_of(s->l1_hoff),
		.l1_entries = be32_of(s->l1_entries),
		.id_bytes = be16_of((u16)s->id_bytes),
		.name_bytes = be16_of((u16)s->name_bytes),
		.date_sec = be32_of(s->date_sec),
		.date_nsec = be32_of(s->date_nsec),
		.vm_clock_ns = be64_of(s->vm_clock_ns),
		.vm_state_bytes =
			be32_of(s->vm_state_bytes > UINT32_MAX ? 0 : (u32)s->vm_state_bytes),
		.extra_bytes = be32_of(KNOWN_EXTRA + s->unknown_bytes),
	};
	u8 *p = to + sizeof(d);

	memcpy(to, &d, sizeof(d));
	store_be64(p, s->vm_state_bytes);
	store_be64(p + 8, s->disk_bytes);
	store_be64(p + 16, s->icount);
	p += KNOWN_EXTRA;
	if (s->unknown_bytes)
		memcpy(p, s->unknown, s->unknown_bytes);
	p += s->unknown_bytes;
	memcpy(p, s->id, s->id_bytes);
	memcpy(p + s->id_bytes, s->name, s->name_bytes);
}

u64 snapshots_bytes(const struct qcow2_snapshot *s, u32 n)
{
	u64 bytes = 0;

	for (u32 i = 0; i < n; i++)
		bytes += entry_bytes(&s[i]);
	return bytes;
}

void snapshots_put(u8 *to, const struct qcow2_snapshot *s, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		put_entry(to, &s[i]);
		to += entry_bytes(&s[i]);
	}
}

/* --- for users --- */

u32 qcow2_snapshots(struct image *img, const struct qcow2_snapshot **out)
{
	struct qcow2 *q = to_qcow2(img);

	*out = q->snapshots;
	return q->snapshot_count;
}

static bool is_text(const char *have, u32 bytes, const char *want)
{
	return strlen(want) == bytes && !memcmp(have, want, bytes);
}

int qcow2_snapshot_find(struct image *img, const char *text, enum qcow2_find how)
{
	struct qcow2 *q = to_qcow2(img);

	for (u32 i = 0; how != FIND_NAME && i < q->snapshot_count; i++)
		if (is_text(q->snapshots[i].id, q->snapshots[i].id_bytes, text))
			return (int)i;
	for (u32 i = 0; how != FIND_ID && i < q->snapshot_count; i++)
		if (is_text(q->snapshots[i].name, q->snapshots[i].name_bytes, text))
			return (int)i;
	return -ENOENT;
}

/* --- text --- */

void qcow2_snapshot_row(const struct qcow2_snapshot *s, const char *id,
			char text[QCOW2_SNAPSHOT_ROW])
{
	char size[32], date[32] = "", clock[64], icount[32] = "";
	u64 ms = s->vm_clock_ns / NS_PER_MS;
	time_t when = s->date_sec;
	struct tm tm;

	format_size(size, s->vm_state_bytes);
	if (localtime_r(&when, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(clock, sizeof(clock), "%02llu:%02llu:%02llu.%03llu",
		 (unsigned long long)(ms / 3600000), (unsigned long long)(ms / 60000 % 60),
		 (unsigned long long)(ms / 1000 % 60), (unsigned long long)(ms % 1000));
	if (s->icount != QCOW2_NO_ICOUNT)
		snprintf(icount, sizeof(icount), "%llu", (unsigned long long)s->icount);
	snprintf(text, QCOW2_SNAPSHOT_ROW, "%-9.*s %-16.*s %8s%20s%13s%11s", QCOW2_SNAPSHOT_ID, id,
		 QCOW2_SNAPSHOT_NAME, s->name, size, date, clock, icount);
}
