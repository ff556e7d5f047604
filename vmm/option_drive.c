/* Options that name disk images: -drive -hda -cdrom -snapshot. */
#include "vmm/options.h"

#include <errno.h>

static const char *const if_names[] = {"ide", "virtio", "none", NULL};

static struct drive_config *add_drive(struct config *c, const char *source)
{
	struct drive_config *d = xnew(struct drive_config);

	d->source = xstrdup(source);
	d->bus = d->unit = DRIVE_NO_PLACE;
	list_append(&c->drives, &d->link);
	return d;
}

int option_hard_disk(struct config *c, const struct option_use *use, struct error *err)
{
	struct drive_config *d = add_drive(c, use->source);
	int index = use->option->name[2] - 'a';

	d->file = xstrdup(use->text);
	d->bus = index / IDE_UNITS;
	d->unit = index % IDE_UNITS;
	return 0;
}

int option_cdrom(struct config *c, const struct option_use *use, struct error *err)
{
	struct drive_config *d = add_drive(c, use->source);

	d->file = *use->text ? xstrdup(use->text) : NULL;
	d->bus = 1;
	d->unit = 0;
	d->cdrom = d->readonly = true;
	return 0;
}

int option_snapshot(struct config *c, const struct option_use *use, struct error *err)
{
	c->snapshot = true;
	return 0;
}

/* index=, or bus= and unit=; what is not given is found later. */
static int drive_place(struct drive_config *d, const struct opts *o, struct error *err)
{
	u32 index = UINT32_MAX, bus = UINT32_MAX, unit = UINT32_MAX;
	u32 units = d->interface == DRIVE_IF_IDE ? IDE_UNITS : UINT16_MAX;
	int ret = opts_get_u32(o, "index", &index, err);

	if (ret == 0)
		ret = opts_get_u32(o, "bus", &bus, err);
	if (ret == 0)
		ret = opts_get_u32(o, "unit", &unit, err);
	if (ret < 0)
		return ret;
	if (index != UINT32_MAX) {
		if (bus != UINT32_MAX || unit != UINT32_MAX)
			return err_set(err, -EINVAL, "index cannot be used with bus and unit");
		bus = index / units;
		unit = index % units;
	}
	if (unit != UINT32_MAX && unit >= units)
		return err_set(err, -EINVAL, "unit %u too big (max is %u)", unit, units - 1);
	if (bus != UINT32_MAX && bus >= (d->interface == DRIVE_IF_IDE ? IDE_BUSES : 1))
		return err_set(err, -EINVAL, "machine type does not support if=%s,bus=%u,unit=%u",
			       if_names[d->interface], bus, unit == UINT32_MAX ? 0 : unit);
	d->bus = bus == UINT32_MAX ? DRIVE_NO_PLACE : (int)bus;
	d->unit = unit == UINT32_MAX ? DRIVE_NO_PLACE : (int)unit;
	return 0;
}

/* Keys that have one of a few words. */
static const struct choice {
	const char *key, *words[6], *before, *after; /* message around the bad word */
} choices[] = {
	{"if", {"ide", "virtio", "none"}, "unsupported bus type '", "'"},
	{"media", {"disk", "cdrom"}, "'", "' invalid media"},
	{"cache",
	 {"writeback", "none", "writethrough", "directsync", "unsafe"},
	 "invalid cache option '",
	 "'"},
	{"aio", {"threads", "native", "io_uring"}, "invalid aio option '", "'"},
	{"discard", {"ignore", "off", "unmap", "on"}, "Invalid discard option '", "'"},
	{"detect-zeroes", {"off", "on", "unmap"}, "invalid parameter value: ", ""},
	{"copy-on-read", {"off"}, "copy-on-read=", " is not available, only off"},
	{"werror", {"report", "ignore", "stop", "enospc"}, "'", "' invalid write error action"},
	{"rerror", {"report", "ignore", "stop"}, "'", "' invalid read error action"},
};

static int check_choices(const struct opts *o, struct error *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(choices); i++) {
		const struct choice *c = &choices[i];
		const char *value = opts_get(o, c->key);

		if (value && parse_choice(value, c->words) < 0)
			return err_set(err, -EINVAL, "%s%s%s", c->before, value, c->after);
	}
	return 0;
}

static bool is_word(const struct opts *o, const char *name, const char *word)
{
	const char *value = opts_get(o, name);

	return value && !strcmp(value, word);
}

static int drive_flags(struct config *c, struct drive_config *d, const struct opts *o,
		       struct error *err)
{
	int ret = opts_get_bool(o, "readonly", &d->readonly, err);

	if (ret == 0)
		ret = opts_get_bool(o, "read-only", &d->readonly, err);
	d->snapshot = c->snapshot;
	if (ret == 0)
		ret = opts_get_bool(o, "snapshot", &d->snapshot, err);
	d->snapshot_given = opts_has(o, "snapshot");
	if (ret < 0)
		return ret;
	d->cdrom = is_word(o, "media", "cdrom");
	d->readonly |= d->cdrom;
	d->discard_unmap = is_word(o, "discard", "unmap") || is_word(o, "discard", "on");
	return 0;
}

/* What is not the drive's is the image's; its driver says what there is. */
static void image_options(struct drive_config *d, const struct opts *o)
{
	static const char *const own[] = {"file",     "if",	  "index",	  "bus",
					  "unit",     "media",	  "format",	  "driver",
					  "cache",    "aio",	  "serial",	  "id",
					  "readonly", "snapshot", "read-only",	  "discard",
					  "werror",   "rerror",	  "copy-on-read", NULL};

	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];

		if (parse_choice(opt->name, own) < 0 && !throttle_is_option(opt->name) &&
		    !(opt->bare && !strncmp(opt->name, "no", 2) &&
		      parse_choice(opt->name + 2, own) >= 0))
			opts_add(&d->image, opt->name, opt->value, opt->bare);
	}
}

static bool names_file(const struct opts *image)
{
	return opts_has(image, "file.filename") || opts_has(image, "file.driver");
}

int option_drive(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	const char *interface = opts_get(o, "if"), *id = opts_get(o, "id");
	struct drive_config *d;
	int ret = check_choices(o, err);

	if (ret < 0)
		return ret;
	if (id && !is_identifier(id))
		return err_set(err, -EINVAL,
			       "Parameter 'id' expects an identifier (letters, digits, '-', '.', "
			       "'_', starting with a letter)");
	if (id && config_find_drive(c, id))
		return err_set(err, -EINVAL, "Duplicate ID '%s' for drive", id);
	d = add_drive(c, use->source);
	if (interface)
		d->interface = (enum drive_if)parse_choice(interface, if_names);
	opts_get_str(o, "id", &d->id);
	opts_get_str(o, "file", &d->file);
	opts_get_str(o, "format", &d->format);
	opts_get_str(o, "driver", &d->format);
	opts_get_str(o, "cache", &d->cache);
	opts_get_str(o, "aio", &d->aio);
	opts_get_str(o, "serial", &d->serial);
	opts_get_str(o, "werror", &d->werror);
	opts_get_str(o, "rerror", &d->rerror);
	image_options(d, o);
	opts_get_str(o, "group", &d->limits_group);
	opts_get_str(o, "throttling.group", &d->limits_group);
	ret = throttle_limits_parse(&d->limits, o, err);
	if (ret == 0)
		ret = drive_flags(c, d, o, err);
	if (ret == 0)
		ret = drive_place(d, o, err);
	if (ret == 0 && !d->file && !d->cdrom && !names_file(&d->image))
		ret = err_set(err, -EINVAL, "Must specify either driver or file");
	return ret;
}
