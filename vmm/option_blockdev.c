/* -blockdev: images by name, of which others are made.
 *
 * A node names what it lies on by options or by another node's name.  A name stands for
 * that node's options: what a drive is opened with says its whole chain.  Nodes that no
 * other uses, and those that a -device names, become drives. */
#include "block/driver.h"
#include "block/names.h"
#include "vmm/options.h"

#include <errno.h>

#define NAME_MAX_BYTES 31
#define CHAIN_MOST     256 /* nodes that one drive is made of */

/* The last part of a key: "backing.file" -> "file". */
static const char *last_part(const char *key)
{
	const char *dot = strrchr(key, '.');

	return dot ? dot + 1 : key;
}

/* Does the option name another node? */
static bool is_reference(const struct opt *opt)
{
	static const char *const children[] = {"file", "backing", "data-file", NULL};

	return *opt->value && parse_choice(last_part(opt->name), children) >= 0;
}

static struct node_config *find_node(const struct config *c, const char *name)
{
	list_for_each (pos, &c->nodes) {
		struct node_config *n = list_entry(pos, struct node_config, link);

		if (!strcmp(n->name, name))
			return n;
	}
	return NULL;
}

/* --- the option ------------------------------------------------------------------------ */

/* What stands over an image and is the drive's business here. */
#define FILTER_KEYS                                                                                \
	"driver node-name file file. read-only auto-read-only discard detect-zeroes "              \
	"cache.direct cache.no-flush"

static bool is_filter(const char *driver)
{
	return !strcmp(driver, "copy-on-read") || !strcmp(driver, "throttle");
}

/* Is all that lies over this "file.file.driver" a filter, too? */
static bool is_under_filters(const struct opts *o, const char *name)
{
	for (const char *p = name; strcmp(p, "driver") != 0; p += 5) {
		AUTO_FREE char *above = xasprintf("%.*sdriver", (int)(p - name), name);
		const char *driver = opts_get(o, above);

		if (strncmp(p, "file.", 5) != 0 || !driver || !is_filter(driver))
			return false;
	}
	return true;
}

static int check_filter(const struct opts *o, const char *driver, struct error *err)
{
	bool throttle = !strcmp(driver, "throttle");

	if (throttle && !opts_has(o, "throttle-group"))
		return err_set(err, -EINVAL, "Parameter 'throttle-group' is missing");
	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name;

		if (!name_in_keys(FILTER_KEYS, name) &&
		    !(throttle && !strcmp(name, "throttle-group")))
			return err_set(err, -EINVAL,
				       "Block format '%s' does not support the option '%s'", driver,
				       name);
	}
	return 0;
}

static bool has_below(const struct opts *o, const char *child)
{
	size_t len = strlen(child);

	for (unsigned i = 0; i < o->n; i++)
		if (!strncmp(o->v[i].name, child, len) &&
		    (!o->v[i].name[len] || o->v[i].name[len] == '.'))
			return true;
	return false;
}

static int check_drivers(const struct opts *o, struct error *err)
{
	const char *top = opts_get(o, "driver");

	if (!top)
		return err_set(err, -EINVAL, "Parameter 'driver' is missing");
	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name, *value = o->v[i].value;

		if (strcmp(last_part(name), "driver") ||
		    (is_filter(value) && is_under_filters(o, name)))
			continue;
		if (!image_driver_find(value) && !image_is_protocol(value))
			return err_set(err, -EINVAL, "Parameter '%s' does not accept value '%s'",
				       name, value);
	}
	if (!image_is_protocol(top) && !has_below(o, "file"))
		return err_set(err, -EINVAL, "Parameter 'file' is missing");
	if ((!strcmp(top, "file") || !strcmp(top, "host_device")) && !opts_has(o, "filename"))
		return err_set(err, -EINVAL, "Parameter 'filename' is missing");
	return 0;
}

static int check_name(const struct config *c, const char *name, struct error *err)
{
	if (!name)
		return err_set(err, -EINVAL, "'node-name' must be specified for the root node");
	if (!is_identifier(name) || strlen(name) > NAME_MAX_BYTES)
		return err_set(err, -EINVAL, "Invalid node-name: '%s'", name);
	if (find_node(c, name))
		return err_set(err, -EEXIST, "Duplicate nodes with node-name='%s'", name);
	return 0;
}

/* Nodes are made in order: what is named has to be there. */
static int use_references(const struct config *c, const struct opts *o, struct error *err)
{
	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];
		struct node_config *n = is_reference(opt) ? find_node(c, opt->value) : NULL;

		if (is_reference(opt) && !n)
			return err_set(
				err, -ENODEV, "%sCannot find device='%s' nor node-name='%s'",
				strcmp(opt->name, "backing") ? "" : "Could not open backing file: ",
				opt->value, opt->value);
		if (n && is_filter(opts_get(&n->opts, "driver")) &&
		    !is_filter(opts_get(o, "driver")))
			return err_set(err, -ENOTSUP,
				       "Node '%s' can only be under other filters and devices",
				       n->name);
		if (n)
			n->used = true;
	}
	return 0;
}

int option_blockdev(struct config *c, const struct option_use *use, struct error *err)
{
	const char *name = opts_get(use->opts, "node-name");
	struct node_config *n;
	int ret = check_drivers(use->opts, err);

	if (ret == 0)
		ret = check_name(c, name, err);
	if (ret == 0)
		ret = use_references(c, use->opts, err);
	if (ret < 0)
		return ret;
	n = xnew(struct node_config);
	n->source = xstrdup(use->source);
	n->name = xstrdup(name);
	opts_sub(use->opts, "", &n->opts);
	list_append(&c->nodes, &n->link);
	return 0;
}

/* --- nodes that become drives --------------------------------------------------------- */

/* The node's options, each behind `prefix`; others that it names in their place.
 * Ends: a node names only such as were there before it. */
static int expand(const struct config *c, const struct node_config *n, const char *prefix,
		  struct opts *out, struct error *err)
{
	int ret = 0;

	if (out->n > CHAIN_MOST * 8)
		return err_set(err, -E2BIG, "'%s' is made of too many nodes", n->name);
	for (unsigned i = 0; i < n->opts.n && ret == 0; i++) {
		const struct opt *opt = &n->opts.v[i];
		AUTO_FREE char *key = xasprintf("%s%s", prefix, opt->name);
		AUTO_FREE char *below = xasprintf("%s.", key);

		if (is_reference(opt))
			ret = expand(c, find_node(c, opt->value), below, out, err);
		else
			opts_add(out, key, opt->value, opt->bare);
	}
	return ret;
}

/* What devices do to a node. */
enum view { HIDDEN, READ, WRITTEN };

/* Nobody writes to it, so nobody else is kept from that. */
static void only_look(struct drive_config *d)
{
	d->readonly = true;
	opts_set(&d->image, "read-only", "on");
	opts_set(&d->image, "force-share", "on");
}

/* auto-read-only: a file that may be opened for reading, until somebody writes to it.
 * Formats other than raw write by themselves. */
static bool may_be_read_only(const struct opts *all)
{
	const char *top = opts_get(all, "driver");
	const char *key = strcmp(top, "raw") ? "auto-read-only" : "file.auto-read-only";
	struct error ignored;
	bool on = false;

	if (strcmp(top, "raw") && !image_is_protocol(top))
		return false;
	return opts_get_bool(all, key, &on, &ignored) == 0 && on;
}

/* What a filter says and the one below it does not. */
static void hand_down(const struct opts *filter, struct opts *below)
{
	static const char *const keys[] = {"detect-zeroes", "cache.direct", "cache.no-flush"};

	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		if (opts_has(filter, keys[i]) && !opts_has(below, keys[i]))
			opts_set(below, keys[i], opts_get(filter, keys[i]));
}

/* The filters on top become the drive's own; what is left is the image's. */
static int take_filters(const struct config *c, struct drive_config *d, struct opts *all,
			struct error *err)
{
	const char *driver;

	while ((driver = opts_get(all, "driver")) && is_filter(driver)) {
		const char *group = opts_get(all, "throttle-group");
		struct opts below;

		if (check_filter(all, driver, err) < 0)
			return err->code;
		if (group && !config_find_throttle(c, group))
			return err_set(err, -ENOENT, "Throttle group '%s' does not exist", group);
		if (group && d->limits_group)
			return err_set(err, -ENOTSUP,
				       "a drive has one throttle group: not '%s', too", group);
		d->copy_on_read |= !group;
		d->limits_group = group ? xstrdup(group) : d->limits_group;
		opts_sub(all, "file.", &below);
		hand_down(all, &below);
		opts_fini(all);
		*all = below;
	}
	return 0;
}

static int make_drive(struct config *c, const struct node_config *n, enum view view,
		      struct error *err)
{
	struct drive_config *d = xnew(struct drive_config);
	struct opts all = {0};
	const char *discard;
	int ret;

	d->source = xstrdup(n->source);
	d->id = xstrdup(n->name);
	d->interface = DRIVE_IF_NONE;
	d->bus = d->unit = DRIVE_NO_PLACE;
	d->node = true;
	list_append(&c->drives, &d->link);
	ret = expand(c, n, "", &all, err);
	if (ret == 0)
		ret = opts_get_bool(&all, "read-only", &d->readonly, err);
	if (ret == 0 && view == READ && may_be_read_only(&all))
		d->readonly = true;
	discard = opts_get(&all, "discard");
	d->discard_unmap = discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"));
	if (ret == 0)
		ret = take_filters(c, d, &all, err);
	if (ret == 0) {
		opts_sub(&all, "", &d->image);
		opts_set(&d->image, "node-name", n->name);
	}
	opts_fini(&all);
	if (view == HIDDEN)
		only_look(d);
	return ret < 0 ? err_prefix(err, "%s", n->source) : 0;
}

/* A device shows a node that is part of another, too. */
static enum view view_of(const struct config *c, const char *name)
{
	list_for_each (pos, &c->devices) {
		const struct device_config *d = list_entry(pos, struct device_config, link);
		const char *drive = opts_get(&d->props, "drive");

		if (drive && !strcmp(drive, name))
			return strcmp(d->driver, "ide-cd") ? WRITTEN : READ;
	}
	return HIDDEN;
}

int config_nodes(struct config *c, struct error *err)
{
	list_for_each (pos, &c->drives) {
		const struct drive_config *d = list_entry(pos, struct drive_config, link);

		if (d->id && find_node(c, d->id))
			return err_set(err, -EEXIST,
				       "%s: Device name '%s' conflicts with an existing node name",
				       d->source, d->id);
	}
	list_for_each (pos, &c->nodes) {
		const struct node_config *n = list_entry(pos, struct node_config, link);

		enum view view = view_of(c, n->name);

		if ((!n->used || view != HIDDEN) && make_drive(c, n, view, err) < 0)
			return err->code;
	}
	return 0;
}
