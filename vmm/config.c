/* Command line to struct config; see config.h.
 *
 * argv is walked once, in order; every option goes through the table in options.c.
 * What depends on the whole (places of drives, default devices) is settled by
 * config_finish. */
#include "vmm/config.h"

#include "devices/rtc.h"
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

void config_init(struct config *c)
{
	*c = (struct config){
		.ram_bytes = RAM_BYTES_DEFAULT,
		.cpus = 1,
		.max_cpus = 1,
		.rtc_clock = RTC_CLOCK_HOST,
		.sockets = 1,
		.cores = 1,
		.threads = 1,
		.boot_splash_ms = UINT32_MAX,
		.boot_retry_ms = UINT32_MAX,
		.escape_char = 1,
	};
	list_init(&c->firmware_dirs);
	list_init(&c->drives);
	list_init(&c->nodes);
	list_init(&c->devices);
	list_init(&c->chardevs);
	list_init(&c->serials);
	list_init(&c->monitors);
	list_init(&c->debugcons);
	list_init(&c->rngs);
	list_init(&c->filters);
	list_init(&c->throttles);
	list_init(&c->nets);
	list_init(&c->vncs);
}

static void free_strings(char **strings[], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
}

#define FREE_STRINGS(...)                                                                          \
	free_strings((char **[]){__VA_ARGS__}, sizeof((char **[]){__VA_ARGS__}) / sizeof(char **))

static void free_frontends(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct frontend_config *f = list_entry(item, struct frontend_config, link);

		FREE_STRINGS(&f->source, &f->spec);
		free(f);
	}
}

static void free_drives(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct drive_config *d = list_entry(item, struct drive_config, link);

		FREE_STRINGS(&d->source, &d->id, &d->file, &d->format, &d->cache, &d->aio,
			     &d->serial, &d->werror, &d->rerror, &d->limits_group);
		opts_fini(&d->image);
		free(d);
	}
}

static void free_nodes(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct node_config *n = list_entry(item, struct node_config, link);

		FREE_STRINGS(&n->source, &n->name);
		opts_fini(&n->opts);
		free(n);
	}
}

static void free_devices(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct device_config *d = list_entry(item, struct device_config, link);

		FREE_STRINGS(&d->source, &d->driver, &d->id);
		opts_fini(&d->props);
		free(d);
	}
}

static void free_nets(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct net_config *n = list_entry(item, struct net_config, link);

		free(n->source);
		opts_fini(&n->opts);
		free(n);
	}
}

static void free_chardevs(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct chardev_config *d = list_entry(item, struct chardev_config, link);

		FREE_STRINGS(&d->source, &d->id, &d->spec);
		free(d);
	}
}

static void free_throttles(struct list *list)
{
	struct list *item;

	while ((item = list_pop(list))) {
		struct throttle_config *t = list_entry(item, struct throttle_config, link);

		throttle_group_put(t->group);
		free(t);
	}
}

void config_fini(struct config *c)
{
	struct list *item;

	secrets_fini(&c->secrets);
	free_drives(&c->drives);
	free_nodes(&c->nodes);
	free_nodes(&c->filters);
	free_devices(&c->devices);
	free_nets(&c->nets);
	free_chardevs(&c->chardevs);
	free_frontends(&c->serials);
	free_frontends(&c->monitors);
	free_frontends(&c->debugcons);
	free_frontends(&c->rngs);
	free_throttles(&c->throttles);
	while ((item = list_pop(&c->firmware_dirs))) {
		struct dir_config *dir = list_entry(item, struct dir_config, link);

		free(dir->path);
		free(dir);
	}
	while ((item = list_pop(&c->vncs)))
		vnc_config_free(list_entry(item, struct vnc_config, link));
	for (unsigned i = 0; i < ARRAY_LEN(c->smbios); i++)
		opts_fini(&c->smbios[i]);
	FREE_STRINGS(&c->name, &c->process_name, &c->cpu_model, &c->mem_path, &c->boot_order,
		     &c->boot_once, &c->bios, &c->kernel, &c->initrd, &c->append, &c->vga,
		     &c->pid_file, &c->loadvm, &c->log_file);
}

struct chardev_config *config_find_chardev(const struct config *c, const char *id)
{
	list_for_each (pos, &c->chardevs) {
		struct chardev_config *d = list_entry(pos, struct chardev_config, link);

		if (!strcmp(d->id, id))
			return d;
	}
	return NULL;
}

struct drive_config *config_find_drive(const struct config *c, const char *id)
{
	list_for_each (pos, &c->drives) {
		struct drive_config *d = list_entry(pos, struct drive_config, link);

		if (d->id && !strcmp(d->id, id))
			return d;
	}
	return NULL;
}

struct throttle_group *config_find_throttle(const struct config *c, const char *id)
{
	list_for_each (pos, &c->throttles) {
		struct throttle_config *t = list_entry(pos, struct throttle_config, link);

		if (!strcmp(throttle_group_name(t->group), id))
			return t->group;
	}
	return NULL;
}

static bool place_taken(const struct config *c, const struct drive_config * not,
			enum drive_if interface, int bus, int unit)
{
	list_for_each (pos, &c->drives) {
		struct drive_config *d = list_entry(pos, struct drive_config, link);

		if (d == not )
			return false; /* only those before it count */
		if (d->interface == interface && d->bus == bus && d->unit == unit)
			return true;
	}
	return false;
}

/* First free place, on the bus that was asked for if one was. */
static int find_place(const struct config *c, struct drive_config *d, struct error *err)
{
	int units = d->interface == DRIVE_IF_IDE ? IDE_UNITS : UINT16_MAX;
	int buses = d->interface == DRIVE_IF_IDE ? IDE_BUSES : 1;
	int first = MAX(d->bus, 0), last = d->bus < 0 ? buses - 1 : d->bus;

	for (int bus = first; bus <= last; bus++)
		for (int unit = 0; unit < units; unit++)
			if (!place_taken(c, d, d->interface, bus, unit)) {
				d->bus = bus;
				d->unit = unit;
				return 0;
			}
	return err_set(err, -EINVAL, "machine type does not support if=ide,bus=%d,unit=0",
		       last + 1);
}

static int place_drive(const struct config *c, struct drive_config *d, struct error *err)
{
	int units = d->interface == DRIVE_IF_IDE ? IDE_UNITS : UINT16_MAX;

	if (d->unit < 0)
		return find_place(c, d, err);
	d->bus = MAX(d->bus, 0);
	if (place_taken(c, d, d->interface, d->bus, d->unit))
		return err_set(err, -EBUSY, "drive with bus=%d, unit=%d (index=%d) exists", d->bus,
			       d->unit, d->bus * units + d->unit);
	return 0;
}

static void name_drive(const struct config *c, struct drive_config *d)
{
	if (d->id)
		return;
	if (d->interface == DRIVE_IF_IDE)
		d->id = xasprintf("ide%d-%s%d", d->bus, d->cdrom ? "cd" : "hd", d->unit);
	else
		d->id = xasprintf("%s%d", d->interface == DRIVE_IF_VIRTIO ? "virtio" : "none",
				  d->unit);
}

static int finish_drives(struct config *c, struct error *err)
{
	list_for_each (pos, &c->drives) {
		struct drive_config *d = list_entry(pos, struct drive_config, link);

		if (place_drive(c, d, err) < 0)
			return err_prefix(err, "%s", d->source);
		name_drive(c, d);
		if (c->snapshot && !d->snapshot_given && !d->readonly)
			d->snapshot = true;
	}
	return 0;
}

/* An empty CD drive at the usual place, unless it is taken. */
static void default_cdrom(struct config *c)
{
	struct drive_config *d;

	if (place_taken(c, NULL, DRIVE_IF_IDE, 1, 0))
		return;
	d = xnew(struct drive_config);
	*d = (struct drive_config){.source = xstrdup("default CD drive"),
				   .bus = 1,
				   .unit = 0,
				   .cdrom = true,
				   .readonly = true,
				   .made_up = true};
	list_append(&c->drives, &d->link);
	name_drive(c, d);
}

static void add_default_net(struct config *c, const char *type)
{
	struct net_config *n = xnew(struct net_config);

	n->source = xstrdup("default network");
	n->use = NET_USE_NET;
	opts_add(&n->opts, "type", type, false);
	list_append(&c->nets, &n->link);
}

/* As the reference: a card, and a network behind it. */
static void default_net(struct config *c)
{
	add_default_net(c, "nic");
	add_default_net(c, "user");
}

static void default_frontend(struct list *to, const char *source, const char *spec)
{
	struct frontend_config *f = xnew(struct frontend_config);

	f->source = xstrdup(source);
	f->spec = xstrdup(spec);
	list_append(to, &f->link);
}

static bool has_driver(const struct config *c, const char *driver)
{
	list_for_each (pos, &c->devices)
		if (!strcmp(list_entry(pos, struct device_config, link)->driver, driver))
			return true;
	return false;
}

static bool uses_spec(const struct list *list, const char *spec)
{
	list_for_each (pos, list)
		if (!strcmp(list_entry(pos, struct frontend_config, link)->spec, spec))
			return true;
	return false;
}

/* Where the first serial port and the monitor go when nobody said. */
static void default_chars(struct config *c)
{
	bool serial = list_empty(&c->serials) && !has_driver(c, "isa-serial") && !c->no_devices;
	bool monitor =
		list_empty(&c->monitors) && !uses_spec(&c->serials, "mon:stdio") && !c->no_devices;

	if (c->nographic && serial && monitor) {
		default_frontend(&c->serials, "-nographic", "mon:stdio");
		return;
	}
	if (serial)
		default_frontend(&c->serials, "default serial port", c->nographic ? "stdio" : "vc");
	if (monitor)
		default_frontend(&c->monitors, "default monitor", c->nographic ? "stdio" : "none");
}

static int check_daemonize(const struct config *c, struct error *err)
{
	const struct list *lists[] = {&c->serials, &c->monitors, &c->debugcons};

	if (!c->daemonize)
		return 0;
	if (c->nographic)
		return err_set(err, -EINVAL, "-nographic cannot be used with -daemonize");
	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		if (uses_spec(lists[i], "stdio") || uses_spec(lists[i], "mon:stdio"))
			return err_set(err, -EINVAL, "cannot use stdio with -daemonize");
	list_for_each (pos, &c->chardevs)
		if (!strcmp(list_entry(pos, struct chardev_config, link)->spec, "stdio"))
			return err_set(err, -EINVAL, "cannot use stdio with -daemonize");
	return 0;
}

static int check_kernel(const struct config *c, struct error *err)
{
	if (c->append && !c->kernel)
		return err_set(err, -EINVAL, "-append only allowed with -kernel option");
	if (c->initrd && !c->kernel)
		return err_set(err, -EINVAL, "-initrd only allowed with -kernel option");
	return 0;
}

int config_finish(struct config *c, struct error *err)
{
	int ret = finish_drives(c, err);

	if (ret == 0)
		ret = check_kernel(c, err);
	if (ret < 0)
		return ret;
	if (!c->no_devices && !has_driver(c, "ide-cd"))
		default_cdrom(c);
	if (!c->no_devices && !c->no_default_net)
		default_net(c);
	if (config_nodes(c, err) < 0)
		return err->code;
	config_share_drives(c);
	default_chars(c);
	return check_daemonize(c, err);
}

/* One option and, if it takes one, its argument; returns how many words it took. */
static int parse_word(struct config *c, char **argv, struct error *err)
{
	const char *name = argv[0] + 1 + (argv[0][1] == '-');
	const struct option *o = option_find(name);
	AUTO_FREE char *source = NULL, *text = NULL;
	int ret;

	if (!o)
		return err_set(err, -EINVAL, "%s: invalid option", argv[0]);
	if (o->arg && !argv[1])
		return err_set(err, -EINVAL, "%s: requires an argument", argv[0]);
	text = o->arg ? xstrdup(argv[1]) : NULL;
	if (o->apply == option_object)
		option_object_hide(argv[1]);
	source = o->arg ? xasprintf("%s %s", argv[0], argv[1]) : xstrdup(argv[0]);
	ret = option_apply(c, o, source, text, err);
	if (text)
		explicit_bzero(text, strlen(text));
	if (ret < 0)
		return err_prefix(err, "%s", source);
	return o->arg ? 2 : 1;
}

int config_parse(struct config *c, int argc, char **argv, struct error *err)
{
	for (int i = 1, n; i < argc && !c->writes_nothing; i += n) {
		if (argv[i][0] == '-' && argv[i][1]) {
			n = parse_word(c, argv + i, err);
			if (n < 0)
				return n;
			continue;
		}
		n = 1;
		if (option_apply(c, option_find("hda"), argv[i], argv[i], err) < 0)
			return err->code;
	}
	return c->writes_nothing ? 0 : config_finish(c, err);
}
