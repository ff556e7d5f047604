/* Options about character streams: -serial -monitor -chardev -mon -nographic. */
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>

static int add_frontend(struct list *to, const char *source, const char *spec)
{
	struct frontend_config *f = xnew(struct frontend_config);

	f->source = xstrdup(source);
	f->spec = xstrdup(spec);
	list_append(to, &f->link);
	return 0;
}

/* Streams that a front end may be given by text; base/chardev.h knows the rest. */
static int check_spec(const char *spec, struct error *err)
{
	static const char *const words[] = {"stdio", "mon:stdio", "pty", "null",
					    "none",  "vc",	  NULL};
	static const char *const heads[] = {"file:", "unix:", "chardev:", "vc:", NULL};
	AUTO_FREE char *word = strndup(spec, strcspn(spec, ","));

	if (word && parse_choice(word, words) >= 0)
		return 0;
	for (unsigned i = 0; heads[i]; i++)
		if (!strncmp(spec, heads[i], strlen(heads[i])) && spec[strlen(heads[i])])
			return 0;
	return err_set(err, -EINVAL, "'%s' is not a valid char driver", spec);
}

int option_serial(struct config *c, const struct option_use *use, struct error *err)
{
	unsigned n = 0;
	int ret = check_spec(use->text, err);

	if (ret < 0)
		return ret;
	list_for_each (pos, &c->serials)
		n++;
	if (n == MAX_SERIALS)
		return err_set(err, -EINVAL, "there are at most %u serial ports", MAX_SERIALS);
	return add_frontend(&c->serials, use->source, use->text);
}

int option_monitor(struct config *c, const struct option_use *use, struct error *err)
{
	int ret = check_spec(use->text, err);

	return ret < 0 ? ret : add_frontend(&c->monitors, use->source, use->text);
}

int option_debugcon(struct config *c, const struct option_use *use, struct error *err)
{
	int ret = check_spec(use->text, err);

	if (ret == 0 && !list_empty(&c->debugcons))
		ret = err_set(err, -EINVAL, "there is only one debug port");
	return ret < 0 ? ret : add_frontend(&c->debugcons, use->source, use->text);
}

int option_mon(struct config *c, const struct option_use *use, struct error *err)
{
	const char *chardev = opts_get(use->opts, "chardev"), *mode = opts_get(use->opts, "mode");
	AUTO_FREE char *spec = NULL;

	if (!chardev)
		return err_set(err, -EINVAL, "Parameter 'chardev' is missing");
	if (mode && !strcmp(mode, "control"))
		return err_set(err, -EINVAL, "mode=control is not available yet, only readline");
	if (mode && strcmp(mode, "readline"))
		return err_set(err, -EINVAL, "Parameter 'mode' does not accept value '%s'", mode);
	spec = xasprintf("chardev:%s", chardev);
	return add_frontend(&c->monitors, use->source, spec);
}

int option_parallel(struct config *c, const struct option_use *use, struct error *err)
{
	if (strcmp(use->text, "none") && strcmp(use->text, "null"))
		return err_set(err, -EINVAL, "there is no parallel port: only none or null");
	return 0;
}

static int socket_spec(const struct opts *o, const char *path, char **spec, struct error *err)
{
	bool server = false, wait = true;
	int ret = opts_get_bool(o, "server", &server, err);

	if (ret == 0)
		ret = opts_get_bool(o, "wait", &wait, err);
	if (ret < 0)
		return ret;
	if (!path)
		return err_set(err, -EINVAL, "chardev: socket: no path given (only unix sockets)");
	*spec = xasprintf("unix:%s%s%s", path, server ? ",server" : "",
			  server && !wait ? ",nowait" : "");
	return 0;
}

static int chardev_spec(const struct opts *o, char **spec, struct error *err)
{
	static const char *const plain[] = {"stdio", "pty", "null", "vc", NULL};
	const char *backend = opts_get(o, "backend"), *path = opts_get(o, "path");

	if (!strcmp(backend, "socket"))
		return socket_spec(o, path, spec, err);
	if (!strcmp(backend, "file") && !path)
		return err_set(err, -EINVAL, "chardev: file: no filename given");
	if (!strcmp(backend, "file"))
		*spec = xasprintf("file:%s", path);
	else if (parse_choice(backend, plain) >= 0)
		*spec = xstrdup(backend);
	else
		return err_set(err, -EINVAL, "'%s' is not a valid char driver name", backend);
	return 0;
}

int option_chardev(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const absent[] = {"append", "signal", "logfile", NULL};
	const char *id = opts_get(use->opts, "id");
	struct chardev_config *d;
	char *spec = NULL;
	int ret;

	if (!opts_has(use->opts, "backend"))
		return err_set(err, -EINVAL, "chardev: no backend specified");
	if (!id)
		return err_set(err, -EINVAL, "chardev: no id specified");
	if (!is_identifier(id))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	if (config_find_chardev(c, id))
		return err_set(err, -EINVAL, "Duplicate ID '%s' for chardev", id);
	for (unsigned i = 0; absent[i]; i++)
		if (opts_has(use->opts, absent[i]))
			return err_set(err, -EINVAL, "%s= is not available", absent[i]);
	ret = chardev_spec(use->opts, &spec, err);
	if (ret < 0)
		return ret;
	d = xnew(struct chardev_config);
	d->source = xstrdup(use->source);
	d->id = xstrdup(id);
	d->spec = spec;
	list_append(&c->chardevs, &d->link);
	return opts_get_bool(use->opts, "mux", &d->mux, err);
}

int option_nographic(struct config *c, const struct option_use *use, struct error *err)
{
	c->nographic = c->no_graphics = true;
	return 0;
}

int option_echr(struct config *c, const struct option_use *use, struct error *err)
{
	u64 code;

	if (use->text[0] && !use->text[1] && !isdigit((unsigned char)use->text[0]))
		code = (u8)use->text[0];
	else if (parse_u64(use->text, &code) < 0 || code < 1 || code > 255)
		return err_set(err, -EINVAL, "Bad argument: expected a character or 1 to 255");
	c->escape_char = (u32)code;
	return 0;
}
