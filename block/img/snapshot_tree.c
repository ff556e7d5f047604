/* cowimg snapshot --tree: what each snapshot and the active state hold alone and
 * share.  By date; a state that goes on from the one above it stands below it, one
 * that goes on from an older state is drawn as a branch. */
#include "block/img/snapshot.h"

#include "block/driver.h"
#include "block/image.h"
#include "block/info/info.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/snapshot_tree.h"

#include <stdio.h>

#include <jansson.h>

#define COLUMN	  28 /* of the name */
#define MOST_DEEP 8u /* branches that are drawn */

struct view {
	const struct qcow2_snapshot *list;
	struct qcow2_tree tree;
};

static const char *name_of(const struct view *v, u32 s)
{
	u32 index = v->tree.states[s].index;

	return index == QCOW2_ACTIVE ? "(active)" : v->list[index].name;
}

/* How often it has branched off up to here, for every state. */
static u32 *depths(const struct qcow2_tree *t)
{
	u32 *depth = xnew_n(u32, t->n);

	for (u32 s = 1; s < t->n; s++) {
		s64 from = t->states[s].from;

		if (from >= 0)
			depth[s] = depth[from] + (from != (s64)s - 1);
	}
	return depth;
}

static void print_row(const struct view *v, u32 s, u32 depth, bool branch)
{
	const struct qcow2_state_use *u = &v->tree.states[s];
	char bytes[32], alone[32], shared[32], vm[32], from[32];
	int indent = (int)MIN(depth, MOST_DEEP) * 2;

	format_size(bytes, u->bytes);
	format_size(alone, u->alone);
	format_size(shared, u->bytes - u->alone);
	format_size(vm, u->vm);
	format_size(from, u->from_bytes);
	printf("%*s%-*.*s %-9.*s %10s %10s %10s %10s", indent, branch ? "`-" : "", COLUMN - indent,
	       QCOW2_SNAPSHOT_NAME, name_of(v, s), QCOW2_SNAPSHOT_ID,
	       u->index == QCOW2_ACTIVE ? "-" : v->list[u->index].id, bytes, alone, shared, vm);
	if (u->from >= 0)
		printf("  %s with %s", from, name_of(v, (u32)u->from));
	putchar('\n');
}

static void print_text(const struct view *v)
{
	AUTO_FREE u32 *depth = depths(&v->tree);

	printf("%-*s %-9s %10s %10s %10s %10s  %s\n", COLUMN, "TAG", "ID", "REFERS TO", "ALONE",
	       "SHARED", "VM STATE", "SHARES MOST");
	for (u32 s = 0; s < v->tree.n; s++) {
		s64 from = v->tree.states[s].from;

		print_row(v, s, depth[s], from >= 0 && from != (s64)s - 1);
	}
	if (v->tree.damaged)
		printf("%llu references are damaged and not counted: the image needs a check\n",
		       (unsigned long long)v->tree.damaged);
}

static json_t *pairs_json(const struct view *v, u32 s)
{
	const struct qcow2_tree *t = &v->tree;
	json_t *all = json_array();

	for (u32 e = 0; e < t->n; e++) {
		u64 bytes = e == s ? 0 : t->shared[(u64)MAX(s, e) * t->n + MIN(s, e)];

		if (bytes)
			json_array_append_new(all, json_pack("{s:i, s:I}", "state", (int)e, "bytes",
							     (json_int_t)bytes));
	}
	return all;
}

static json_t *state_json(const struct view *v, u32 s)
{
	const struct qcow2_state_use *u = &v->tree.states[s];
	json_t *o = json_object();

	if (u->index != QCOW2_ACTIVE)
		json_object_set_new(o, "snapshot", info_snapshot_json(&v->list[u->index]));
	json_object_set_new(o, "active", json_boolean(u->index == QCOW2_ACTIVE));
	json_object_set_new(o, "bytes", json_integer((json_int_t)u->bytes));
	json_object_set_new(o, "alone-bytes", json_integer((json_int_t)u->alone));
	json_object_set_new(o, "shared-bytes", json_integer((json_int_t)(u->bytes - u->alone)));
	json_object_set_new(o, "vm-state-bytes", json_integer((json_int_t)u->vm));
	if (u->from >= 0)
		json_object_set_new(o, "from", json_integer(u->from));
	if (v->tree.shared)
		json_object_set_new(o, "shared-with", pairs_json(v, s));
	return o;
}

static void print_json(const struct view *v)
{
	json_t *o = json_object(), *all = json_array();

	for (u32 s = 0; s < v->tree.n; s++)
		json_array_append_new(all, state_json(v, s));
	json_object_set_new(o, "states", all);
	json_object_set_new(o, "damaged-references", json_integer((json_int_t)v->tree.damaged));
	json_dumpf(o, stdout, JSON_INDENT(4));
	putchar('\n');
	json_decref(o);
}

int snapshot_tree(struct img *ctx, struct image *img, bool json)
{
	struct view v = {0};
	struct error err = {0};

	if (img->driver != &qcow2_driver)
		return img_error(ctx, "Format '%s' has no internal snapshots", img->driver->name);
	if (qcow2_tree(ctx->f, img, &v.tree, &err) < 0)
		return img_error(ctx, "%s", err.text);
	(void)qcow2_snapshots(img, &v.list);
	if (json)
		print_json(&v);
	else
		print_text(&v);
	qcow2_tree_fini(&v.tree);
	return IMG_OK;
}
