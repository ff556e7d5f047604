/* `info block` and `info blockstats`. */
#include "block/blk_control.h"
#include "block/graph.h"
#include "block/info/info.h"
#include "devices/device.h"
#include "devices/ide/ide.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>

static void print_limits(const struct drive *d, struct printer *p)
{
	struct throttle_limits l;
	AUTO_FREE char *group = blk_get_limits(d->blk, &l);

	if (!group)
		return;
	print_to(p, "    I/O throttling:  ");
	for (unsigned i = 0; i < 2; i++) {
		const struct throttle_limit *of = i ? l.iops : l.bps;
		const char *name = i ? "iops" : "bps";

		print_to(p, " %s=%llu %s_rd=%llu %s_wr=%llu", name, (unsigned long long)of[0].avg,
			 name, (unsigned long long)of[1].avg, name, (unsigned long long)of[2].avg);
		print_to(p, " %s_max=%llu %s_rd_max=%llu %s_wr_max=%llu", name,
			 (unsigned long long)of[0].max, name, (unsigned long long)of[1].max, name,
			 (unsigned long long)of[2].max);
	}
	print_to(p, " iops_size=%llu group=%s\n", (unsigned long long)l.iops_size, group);
}

static void print_head(const struct drive *d, const struct blk_info *info, struct printer *p)
{
	const char *id = d->config->id;

	if (!info->has_medium) {
		print_to(p, "%s: [not inserted]\n", id);
		return;
	}
	print_to(p, "%s", id);
	if (strcmp(id, info->node))
		print_to(p, " (%s)", info->node);
	print_to(p, ": %s (%s%s%s)\n", info->file, info->format,
		 info->readonly ? ", read-only" : "", info->encrypted ? ", encrypted" : "");
}

static void print_medium(const struct drive *d, const struct blk_info *info, struct printer *p)
{
	print_to(p, "    Cache mode:       %s\n", info->cache);
	if (info->locked)
		print_to(p, "    Locked:           %s (no passphrase yet)\n", info->locked);
	if (info->backing_file)
		print_to(p, "    Backing file:     %s (chain depth: %u)\n", info->backing_file,
			 info->backing_depth);
	if (info->detect_zeroes)
		print_to(p, "    Detect zeroes:    %s\n",
			 info->detect_zeroes == 1 ? "on" : "unmap");
	print_limits(d, p);
}

static void print_drive(const struct drive *d, const struct blk_info *info, struct printer *p)
{
	bool open = false, locked = false;

	print_head(d, info, p);
	if (d->device)
		print_to(p, "    Attached to:      %s\n", d->device->id);
	/* What no device shows may be taken out at any time. */
	if (!d->device || ide_cd_tray(d->device, &open, &locked))
		print_to(p, "    Removable device: %slocked, tray %s\n", locked ? "" : "not ",
			 open ? "open" : "closed");
	if (info->has_medium)
		print_medium(d, info, p);
}

/* --- what lies on the drive's thread ------------------------------------------------ */

struct describe {
	FILE *out;
	const char *name; /* of the one node that is wanted; NULL: all */
	unsigned shown;
};

static int describe_chain(struct fiber *f, struct blk *blk, void *arg)
{
	struct describe *d = arg;

	for (struct image *img = blk_image(blk); img; img = img->backing)
		info_print(d->out, img);
	return 0;
}

static void describe_node(struct describe *d, const struct image *img)
{
	AUTO_FREE char *cache = image_cache_words(img->cache, true);
	char name[NODE_NAME_ROOM];

	image_node_name(img, name);
	if (d->name && strcmp(d->name, name))
		return;
	fprintf(d->out, "%s%s: %s (%s%s%s)\n    Cache mode:       %s\n", d->shown++ ? "\n" : "",
		name, img->name, img->driver->name, img->writable ? "" : ", read-only",
		img->encrypted ? ", encrypted" : "", cache);
	if (img->backing)
		fprintf(d->out, "    Backing file:     %s (chain depth: %u)\n",
			img->backing_name ? img->backing_name : img->backing->name,
			image_depth(img));
	if (img->detect_zeroes)
		fprintf(d->out, "    Detect zeroes:    %s\n",
			img->detect_zeroes == DETECT_ZEROES_ON ? "on" : "unmap");
}

/* The last one first, each before what lies under it: the order of the reference. */
static int describe_nodes(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image *top = blk_image(blk);

	for (unsigned n = top ? image_depth(top) + 1 : 0; n; n--) {
		const struct image *img = top;

		for (unsigned i = 1; i < n; i++)
			img = img->backing;
		for (; img; img = img->below)
			describe_node(arg, img);
	}
	return 0;
}

static void describe(struct drive *d, blk_fn *fn, struct describe *what, struct printer *p)
{
	char *text = NULL;
	size_t bytes = 0;

	what->out = open_memstream(&text, &bytes);
	assert(what->out);
	blk_run(d->blk, fn, what);
	fclose(what->out);
	if (bytes)
		print_to(p, "%s", text);
	free(text);
}

/* --- the commands ---------------------------------------------------------------------- */

static int info_nodes(struct vm *vm, const char *name, struct printer *p, struct error *err)
{
	struct describe what = {.name = name};

	for (struct list *pos = vm->drives.prev; pos != &vm->drives; pos = pos->prev) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (name && !strcmp(name, d->config->id)) {
			what.name = NULL;
			describe(d, describe_nodes, &what, p);
			return 0;
		}
		describe(d, describe_nodes, &what, p);
	}
	return !name || what.shown ? 0 : err_set(err, -ENODEV, "Node '%s' not found", name);
}

static void info_drive(struct drive *d, bool verbose, bool first, struct printer *p)
{
	struct describe chain = {.out = NULL};
	struct blk_info info;

	blk_get_info(d->blk, &info);
	if (!first)
		print_to(p, "\n");
	print_drive(d, &info, p);
	if (verbose && info.has_medium) {
		print_to(p, "\nImages:\n");
		describe(d, describe_chain, &chain, p);
	}
	blk_info_fini(&info);
}

int vm_info_block(struct vm *vm, bool nodes, bool verbose, const char *device, struct printer *p,
		  struct error *err)
{
	struct drive *wanted = device ? vm_find_drive(vm, device) : NULL;
	bool first = true;

	if (nodes)
		return info_nodes(vm, device, p, err);
	if (device && !wanted)
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (wanted ? d != wanted : d->config->node && !d->device)
			continue;
		info_drive(d, verbose, first, p);
		first = false;
	}
	return 0;
}

void vm_info_blockstats(struct vm *vm, struct printer *p)
{
	static const struct {
		const char *name;
		enum blk_op op;
	} kinds[] = {{"rd", BLK_READ}, {"wr", BLK_WRITE}};

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		struct blk_stats s;

		blk_get_stats(d->blk, &s);
		print_to(p, "%s:", d->config->id);
		for (unsigned i = 0; i < 2; i++)
			print_to(p, " %s_bytes=%llu", kinds[i].name,
				 (unsigned long long)s.bytes[kinds[i].op]);
		for (unsigned i = 0; i < 2; i++)
			print_to(p, " %s_operations=%llu", kinds[i].name,
				 (unsigned long long)s.ops[kinds[i].op]);
		print_to(p, " flush_operations=%llu", (unsigned long long)s.ops[BLK_FLUSH]);
		for (unsigned i = 2; i-- > 0;)
			print_to(p, " %s_total_time_ns=%llu", kinds[i].name,
				 (unsigned long long)s.total_ns[kinds[i].op]);
		print_to(p, " flush_total_time_ns=%llu rd_merged=0 wr_merged=0 idle_time_ns=%llu\n",
			 (unsigned long long)s.total_ns[BLK_FLUSH], (unsigned long long)s.idle_ns);
	}
}
