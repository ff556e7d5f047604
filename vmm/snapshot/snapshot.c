/* Snapshots of a machine: what there is, listing. */
#include "vmm/snapshot/snapshot.h"

#include "block/blk.h"
#include "vmm/unlock.h"

#include <errno.h>

int snapshots_of(struct vm *vm, struct snapshots **out, struct error *err)
{
	int ret = vm_check_unlocked(vm, err);

	if (ret < 0)
		return ret;
	if (!vm->snapshots) {
		struct snapshots *s = xnew(struct snapshots);

		s->vm = vm;
		ret = ram_map_init(&s->map, vm->machine.mem, err);
		if (ret < 0) {
			free(s);
			return ret;
		}
		vm->snapshots = s;
	}
	*out = vm->snapshots;
	return ret;
}

void vm_free_snapshots(struct vm *vm)
{
	struct snapshots *s = vm->snapshots;

	if (!s)
		return;
	save_free(s->save);
	delete_free(s->del);
	load_free(s->load);
	snapshot_entry_fini(&s->base);
	free(s->asked);
	ram_map_fini(&s->map);
	free(s);
	vm->snapshots = NULL;
}

void snapshots_forget_base(struct snapshots *s)
{
	snapshot_entry_fini(&s->base);
	memset(s->map.dirty, 0xff, ram_bitmap_bytes(&s->map));
}

void vm_forget_waiter(struct vm *vm, struct vm_waiter *w)
{
	if (!vm->snapshots)
		return;
	save_forget_waiter(vm->snapshots, w);
	delete_forget_waiter(vm->snapshots, w);
}

void snapshots_load_ended(struct snapshots *s, int ret)
{
	delete_goes_on(s);
	save_load_ended(s, ret);
}

/* --- list ----------------------------------------------------------------------- */

#define HEADING "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n"

static void print_row(struct printer *p, const struct qcow2_snapshot *s, const char *id)
{
	char text[QCOW2_SNAPSHOT_ROW];

	qcow2_snapshot_row(s, id, text);
	print_to(p, "%s\n", text);
}

/* Is it in every drive, with VM state in the first? */
static bool is_whole(const struct entries *all, u32 n, const struct qcow2_snapshot *s)
{
	int at = entries_find_same(&all[0], s);

	for (u32 i = 0; i < n && at >= 0; i++)
		at = MIN(at, entries_find_same(&all[i], s));
	at = at < 0 ? at : entries_find_same(&all[0], s);
	return at >= 0 && all[0].v[at].vm_state_bytes;
}

static void print_whole(const struct entries *all, u32 n, struct printer *p)
{
	bool any = false;

	print_to(p, "List of snapshots present on all disks:\n");
	for (u32 i = 0; i < all[0].n; i++) {
		if (!is_whole(all, n, &all[0].v[i]))
			continue;
		if (!any)
			print_to(p, HEADING);
		any = true;
		print_row(p, &all[0].v[i], "--");
	}
	if (!any)
		print_to(p, "None\n");
}

static void print_partial(const struct drive_set *set, const struct entries *all, u32 d,
			  struct printer *p)
{
	bool any = false;

	for (u32 i = 0; i < all[d].n; i++) {
		if (is_whole(all, set->n, &all[d].v[i]))
			continue;
		if (!any)
			print_to(p, "\nList of partial (non-loadable) snapshots on '%s':\n" HEADING,
				 set->drives[d]->config->id);
		any = true;
		print_row(p, &all[d].v[i], all[d].v[i].id);
	}
}

int vm_info_snapshots(struct vm *vm, struct printer *p, struct error *err)
{
	struct drive_set set;
	struct entries *all;
	bool any = false;
	int ret = drive_set_init(&set, vm, err);

	if (ret < 0)
		return ret;
	all = xnew_n(struct entries, set.n);
	for (u32 i = 0; i < set.n; i++) {
		entries_get(&all[i], set.drives[i]);
		any |= all[i].n > 0;
	}
	if (any) {
		print_whole(all, set.n, p);
		for (u32 i = 0; i < set.n; i++)
			print_partial(&set, all, i, p);
	} else {
		print_to(p, "There is no snapshot available.\n");
	}
	for (u32 i = 0; i < set.n; i++)
		entries_fini(&all[i]);
	free(all);
	return 0;
}
