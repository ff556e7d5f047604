/* Options of booting and running: -boot -action -trace -device and plain ones. */
#include "base/log.h"
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

static void set_text(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
}

int option_text(struct config *c, const struct option_use *use, struct error *err)
{
	assert(use->option->member);
	set_text((char **)((char *)c + use->option->member), use->text);
	return 0;
}

int option_flag(struct config *c, const struct option_use *use, struct error *err)
{
	assert(use->option->member);
	*(bool *)((char *)c + use->option->member) = true;
	return 0;
}

/* What is asked for is how this machine always is. */
int option_nothing(struct config *c, const struct option_use *use, struct error *err)
{
	return 0;
}

int option_firmware_dir(struct config *c, const struct option_use *use, struct error *err)
{
	struct dir_config *dir = xnew(struct dir_config);

	dir->path = xstrdup(use->text);
	list_append(&c->firmware_dirs, &dir->link);
	return 0;
}

/* Letters a to p, each at most once. */
static int check_boot_order(const char *letters, struct error *err)
{
	for (const char *p = letters; *p; p++) {
		if (*p < 'a' || *p > 'p')
			return err_set(err, -EINVAL, "Invalid boot device '%c'", *p);
		if (strchr(p + 1, *p))
			return err_set(err, -EINVAL, "Boot device '%c' was given twice", *p);
	}
	return 0;
}

int option_boot(struct config *c, const struct option_use *use, struct error *err)
{
	const char *order = opts_get(use->opts, "order"), *once = opts_get(use->opts, "once");
	int ret = order ? check_boot_order(order, err) : 0;

	if (ret == 0 && once)
		ret = check_boot_order(once, err);
	if (ret == 0)
		ret = opts_get_bool(use->opts, "menu", &c->boot_menu, err);
	if (ret == 0)
		ret = opts_get_bool(use->opts, "strict", &c->boot_strict, err);
	if (ret == 0)
		ret = opts_get_u32(use->opts, "splash-time", &c->boot_splash_ms, err);
	if (ret == 0)
		ret = opts_get_u32(use->opts, "reboot-timeout", &c->boot_retry_ms, err);
	if (ret < 0)
		return ret;
	opts_get_str(use->opts, "order", &c->boot_order);
	opts_get_str(use->opts, "once", &c->boot_once);
	return 0;
}

int option_no_reboot(struct config *c, const struct option_use *use, struct error *err)
{
	c->on_reboot = END_SHUTDOWN;
	return 0;
}

int option_no_shutdown(struct config *c, const struct option_use *use, struct error *err)
{
	c->on_shutdown = END_PAUSE;
	return 0;
}

static int action(const struct opts *o, const char *name, const char *const *words,
		  enum end_action *out, struct error *err)
{
	/* In the order of the words below. */
	static const enum end_action actions[] = {END_RESET, END_SHUTDOWN, END_SHUTDOWN, END_PAUSE,
						  END_NONE};
	const char *value = opts_get(o, name);
	int at;

	if (!value)
		return 0;
	at = parse_choice(value, words);
	if (at < 0 || !*value)
		return err_set(err, -EINVAL, "Parameter '%s' does not accept value '%s'", name,
			       value);
	*out = actions[at];
	return 0;
}

int option_action(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const reboot[] = {"reset", "shutdown", NULL};
	static const char *const shutdown[] = {"", "", "poweroff", "pause", NULL};
	static const char *const panic[] = {"", "shutdown", "", "pause", "none", NULL};
	int ret = action(use->opts, "reboot", reboot, &c->on_reboot, err);

	if (ret == 0)
		ret = action(use->opts, "shutdown", shutdown, &c->on_shutdown, err);
	if (ret == 0)
		ret = action(use->opts, "panic", panic, &c->on_panic, err);
	return ret;
}

/* Takes effect at once, so that it covers what follows. */
int option_trace(struct config *c, const struct option_use *use, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(use->text);
	char *save = NULL;

	if (!strcmp(use->text, "help")) {
		for (unsigned i = 0; i < TRACE_AREAS; i++)
			printf("%s\n", trace_area_name(i));
		c->writes_nothing = true;
		return 0;
	}
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		/* The reference's spelling "enable=area". */
		if (!strncmp(p, "enable=", 7))
			p += 7;
		if (trace_set(p, true) < 0)
			return err_set(err, -EINVAL,
				       "there is no trace area '%s' (see -trace help)", p);
	}
	return 0;
}

int option_read_config(struct config *c, const struct option_use *use, struct error *err)
{
	return config_read_file(c, use->text, err);
}

int option_device(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	const char *driver = opts_get(o, "driver"), *id = opts_get(o, "id");
	struct device_config *d;

	if (opts_has(o, "help") || (driver && !strcmp(driver, "help"))) {
		c->writes_nothing = true;
		return device_help(stdout, opts_has(o, "help") ? driver : NULL, err);
	}
	if (!driver)
		return err_set(err, -EINVAL, "Parameter 'driver' is missing");
	if (id && !is_identifier(id))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	d = xnew(struct device_config);
	d->source = xstrdup(use->source);
	d->driver = xstrdup(driver);
	d->id = id ? xstrdup(id) : NULL;
	for (unsigned i = 0; i < o->n; i++)
		if (strcmp(o->v[i].name, "driver") && strcmp(o->v[i].name, "id"))
			opts_add(&d->props, o->v[i].name, o->v[i].value, o->v[i].bare);
	list_append(&c->devices, &d->link);
	return 0;
}

int option_help(struct config *c, const struct option_use *use, struct error *err)
{
	options_help(stdout);
	c->writes_nothing = true;
	return 0;
}

int option_version(struct config *c, const struct option_use *use, struct error *err)
{
	printf("cowvm version " COWVM_VERSION "\n");
	c->writes_nothing = true;
	return 0;
}
