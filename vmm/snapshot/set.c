/* Snapshots across the drives of a machine; see set.h. */
#include "vmm/snapshot/set.h"

#include "block/blk_control.h"
#include "block/driver.h"
#include "vmm/vm.h"

#include <errno.h>

/* --- drives --------------------------------------------------------------------- */

static int is_qcow2(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);

	return img && img->driver == &qcow2_driver;
}

bool drive_has_snapshots(struct drive *d)
{
	return blk_run(d->blk, is_qcow2, NULL);
}

/* The VM state holds what the guest knows: it goes where it is encrypted, if there
 * is such a place. */
static void encrypted_first(struct drive_set *set)
{
	for (u32 i = 0; i < set->n; i++) {
		struct drive *d = set->drives[i];

		if (!blk_is_encrypted(d->blk))
			continue;
		memmove(set->drives + 1, set->drives, i * sizeof(*set->drives));
		set->drives[0] = d;
		return;
	}
}

int drive_set_init(struct drive_set *set, struct vm *vm, struct error *err)
{
	set->n = 0;
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (!blk_has_medium(d->blk) || blk_is_readonly(d->blk))
			continue;
		if (!drive_has_snapshots(d))
			return err_set(err, -ENOTSUP,
				       "Device '%s' is writable but does not support snapshots",
				       d->config->id);
		if (set->n == SET_MAX_DRIVES)
			return err_set(err, -E2BIG, "more than %u drives to take a snapshot of",
				       SET_MAX_DRIVES);
		set->drives[set->n++] = d;
	}
	encrypted_first(set);
	return set->n ? 0 : err_set(err, -ENOTSUP, "No block device can accept snapshots");
}

/* --- entries -------------------------------------------------------------------- */

static void copy_entry(struct qcow2_snapshot *to, const struct qcow2_snapshot *from)
{
	*to = *from;
	to->id = xstrdup(from->id);
	to->name = xstrdup(from->name);
	to->unknown = NULL;
	to->unknown_bytes = 0;
}

void snapshot_entry_fini(struct qcow2_snapshot *s)
{
	free(s->id);
	free(s->name);
	s->id = s->name = NULL;
}

static int copy_entries(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);
	const struct qcow2_snapshot *list = NULL;
	struct entries *e = arg;

	if (!img || img->driver != &qcow2_driver)
		return 0;
	e->n = qcow2_snapshots(img, &list);
	e->v = xnew_n(struct qcow2_snapshot, MAX(e->n, 1u));
	for (u32 i = 0; i < e->n; i++)
		copy_entry(&e->v[i], &list[i]);
	return 0;
}

int entries_get(struct entries *e, struct drive *d)
{
	*e = (struct entries){0};
	return blk_run(d->blk, copy_entries, e);
}

void entries_fini(struct entries *e)
{
	for (u32 i = 0; i < e->n; i++)
		snapshot_entry_fini(&e->v[i]);
	free(e->v);
	*e = (struct entries){0};
}

int entries_find(const struct entries *e, const char *name)
{
	for (u32 i = e->n; i-- > 0;)
		if (!strcmp(e->v[i].name, name))
			return (int)i;
	return -ENOENT;
}

bool snapshot_is_same(const struct qcow2_snapshot *a, const struct qcow2_snapshot *b)
{
	return !strcmp(a->name, b->name) && a->date_sec == b->date_sec &&
	       a->date_nsec == b->date_nsec && a->vm_clock_ns == b->vm_clock_ns;
}

int entries_find_same(const struct entries *e, const struct qcow2_snapshot *s)
{
	for (u32 i = e->n; i-- > 0;)
		if (snapshot_is_same(&e->v[i], s))
			return (int)i;
	return -ENOENT;
}

int snapshot_index(struct image *img, const struct qcow2_snapshot *s)
{
	const struct qcow2_snapshot *list;
	u32 n = qcow2_snapshots(img, &list);

	for (u32 i = n; i-- > 0;)
		if (snapshot_is_same(&list[i], s))
			return (int)i;
	return -ENOENT;
}

/* --- sets ----------------------------------------------------------------------- */

/* Do all drives but the first have it? */
static bool is_complete(const struct entries *all, u32 n, const struct qcow2_snapshot *s)
{
	for (u32 i = 1; i < n; i++)
		if (entries_find_same(&all[i], s) < 0)
			return false;
	return true;
}

int set_find(const struct drive_set *set, const char *name, struct qcow2_snapshot *out,
	     struct error *err)
{
	struct entries *all = xnew_n(struct entries, set->n);
	const struct qcow2_snapshot *found = NULL;
	bool disk_only = false;

	for (u32 i = 0; i < set->n; i++)
		entries_get(&all[i], set->drives[i]);
	for (u32 i = all[0].n; i-- > 0 && !found;) {
		const struct qcow2_snapshot *s = &all[0].v[i];

		if (strcmp(s->name, name) || !is_complete(all, set->n, s))
			continue;
		if (s->vm_state_bytes)
			found = s;
		else
			disk_only = true;
	}
	if (found)
		copy_entry(out, found);
	for (u32 i = 0; i < set->n; i++)
		entries_fini(&all[i]);
	free(all);
	if (found)
		return 0;
	if (disk_only)
		return err_set(err, -EINVAL,
			       "This is a disk-only snapshot. Revert to it offline using "
			       "cowimg");
	return err_set(err, -ENOENT, "Snapshot '%s' does not exist in one or more devices", name);
}

struct one_delete {
	struct qcow2_snapshot *s;
	struct error err;
};

/* By identity: places in the list move with every deletion. */
static int delete_one(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);
	const struct qcow2_snapshot *list;
	struct one_delete *d = arg;
	u32 n = qcow2_snapshots(img, &list);

	for (u32 i = 0; i < n; i++)
		if (!strcmp(list[i].id, d->s->id) && snapshot_is_same(&list[i], d->s))
			return qcow2_snapshot_delete(f, img, i, &d->err);
	return 0;
}

int set_delete(const struct drive_set *set, const char *name, const struct qcow2_snapshot *keep,
	       u32 *count, struct error *err)
{
	int ret = 0;

	*count = 0;
	/* The drive with the VM state first: without it the set is none. */
	for (u32 d = 0; ret == 0 && d < set->n; d++) {
		struct entries e;

		ret = entries_get(&e, set->drives[d]);
		for (u32 i = 0; ret == 0 && i < e.n; i++) {
			struct one_delete one = {.s = &e.v[i]};

			if (strcmp(e.v[i].name, name) || (keep && snapshot_is_same(&e.v[i], keep)))
				continue;
			ret = blk_run(set->drives[d]->blk, delete_one, &one);
			if (ret < 0)
				err_set(err, ret, "deleting snapshot '%s' on device '%s': %s", name,
					set->drives[d]->config->id, one.err.text);
			*count += ret == 0;
		}
		entries_fini(&e);
	}
	return ret;
}
