/* Options of displays: -display -vga -vnc. */
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>

#define VNC_PORT    5900
#define VNC_WS_PORT 5700
#define MAX_PORT    65535

int option_display(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const others[] = {"gtk", "sdl", "curses", "dbus", NULL};
	AUTO_FREE char *type = xstrdup(use->text);

	type[strcspn(type, ",=")] = 0;
	if (!strcmp(use->text, "none"))
		return 0;
	if (!strncmp(use->text, "vnc=", 4))
		return option_apply(c, option_find("vnc"), use->source, use->text + 4, err);
	if (parse_choice(type, others) >= 0)
		return err_set(err, -EINVAL, "display '%s' is not available, only none and vnc",
			       type);
	return err_set(err, -EINVAL, "Parameter 'type' does not accept value '%s'", type);
}

int option_vga(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const kinds[] = {"std", "none", NULL};
	static const char *const others[] = {"cirrus", "vmware", "qxl", "virtio",
					     "xenfb",  "tcx",	 "cg3", NULL};

	if (parse_choice(use->text, others) >= 0)
		return err_set(err, -EINVAL, "video card '%s' is not available, only std and none",
			       use->text);
	if (parse_choice(use->text, kinds) < 0)
		return err_set(err, -EINVAL, "unknown vga type: %s", use->text);
	free(c->vga);
	c->vga = xstrdup(use->text);
	return 0;
}

/* --- VNC -------------------------------------------------------------------------- */

static int parse_port(const char *text, u32 base, u32 *port, struct error *err)
{
	u64 value;

	if (!isdigit((unsigned char)*text) || parse_u64(text, &value) < 0)
		return err_set(err, -EINVAL, "can't convert to a number: %s", text);
	if (value > MAX_PORT - base)
		return err_set(err, -EINVAL, "port %s out of range", text);
	*port = (u32)value + base;
	return 0;
}

/* "[host]:number"; a host in brackets may hold colons. */
static int parse_place(const char *text, u32 base, char **host, u32 *port, struct error *err)
{
	const char *colon = strrchr(text, ':');
	size_t bytes = colon ? (size_t)(colon - text) : 0;

	if (!colon || !colon[1])
		return err_set(err, -EINVAL, "no vnc port specified");
	if (bytes >= 2 && text[0] == '[' && text[bytes - 1] == ']') {
		text++;
		bytes -= 2;
	}
	*host = bytes ? strndup(text, bytes) : NULL;
	return parse_port(colon + 1, base, port, err);
}

static int parse_display(struct vnc_config *v, const char *display, struct error *err)
{
	if (!strncmp(display, "unix:", 5) && display[5]) {
		v->path = xstrdup(display + 5);
		return 0;
	}
	return parse_place(display, VNC_PORT, &v->host, &v->port, err);
}

/* on: the display's number above 5700. */
static int parse_websocket(struct vnc_config *v, const char *text, struct error *err)
{
	bool on = false;

	if (!text || (parse_bool(text, &on) == 0 && !on))
		return 0;
	if (v->path)
		return err_set(err, -EINVAL, "UNIX sockets not supported with websock");
	if (on)
		v->ws_port = v->port - VNC_PORT + VNC_WS_PORT;
	else if (strchr(text, ':'))
		return parse_place(text, 0, &v->ws_host, &v->ws_port, err);
	else
		return parse_port(text, 0, &v->ws_port, err);
	return 0;
}

static int parse_share(struct vnc_config *v, const char *text, struct error *err)
{
	static const char *const words[] = {"allow-exclusive", "force-shared", "ignore", NULL};
	int choice = text ? parse_choice(text, words) : 0;

	if (choice < 0)
		return err_set(err, -EINVAL, "unknown vnc share= option");
	v->share = choice;
	return 0;
}

/* As for all of the reference's sockets: one that is said to be on is the only one. */
static int parse_families(struct vnc_config *v, const struct opts *o, struct error *err)
{
	bool v4 = false, v6 = false;

	if (opts_get_bool(o, "ipv4", &v4, err) < 0 || opts_get_bool(o, "ipv6", &v6, err) < 0)
		return err->code;
	if (opts_has(o, "ipv4") && opts_has(o, "ipv6") && !v4 && !v6)
		return err_set(err, -EINVAL, "Cannot disable IPv4 and IPv6 at same time");
	v->no_ipv4 = (opts_has(o, "ipv4") || v6) && !v4;
	v->no_ipv6 = (opts_has(o, "ipv6") || v4) && !v6;
	return 0;
}

static int parse_rest(struct vnc_config *v, const struct opts *o, struct error *err)
{
	const char *to = opts_get(o, "to");
	int ret = opts_get_bool(o, "password", &v->password, err);

	if (ret == 0)
		ret = parse_families(v, o, err);
	if (ret == 0)
		ret = parse_share(v, opts_get(o, "share"), err);
	if (ret == 0)
		ret = parse_websocket(v, opts_get(o, "websocket"), err);
	v->port_last = v->port;
	if (ret == 0 && to)
		ret = parse_port(to, VNC_PORT, &v->port_last, err);
	if (ret == 0 && v->port_last < v->port)
		return err_set(err, -EINVAL, "to=%s is below the display's number", to);
	return ret;
}

void vnc_config_free(struct vnc_config *v)
{
	free(v->host);
	free(v->path);
	free(v->ws_host);
	free(v->source);
	free(v->id);
	free(v);
}

static bool has_vnc(const struct config *c, const char *id)
{
	list_for_each (pos, &c->vncs)
		if (!strcmp(list_entry(pos, struct vnc_config, link)->id, id))
			return true;
	return false;
}

/* The first display without a name is "default", the next ones "vnc2", "vnc3" ... */
static int choose_id(const struct config *c, const char *id, char **out, struct error *err)
{
	unsigned n = 1;

	if (id && !is_identifier(id))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	if (id && has_vnc(c, id))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for vnc", id);
	*out = xstrdup(id ? id : "default");
	while (!id && has_vnc(c, *out)) {
		free(*out);
		*out = xasprintf("vnc%u", ++n);
	}
	return 0;
}

int option_vnc(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const absent[] = {"tls-creds",	"sasl", "reverse", "audiodev",
					     "password-secret", NULL};
	const char *display = opts_get(use->opts, "vnc");
	struct vnc_config *v;
	int ret;

	for (unsigned i = 0; absent[i]; i++)
		if (opts_has(use->opts, absent[i]))
			return err_set(err, -EINVAL, "%s= is not available", absent[i]);
	if (!display)
		return err_set(err, -EINVAL, "no vnc port specified");
	v = xnew(struct vnc_config);
	v->none = !strcmp(display, "none");
	v->source = xstrdup(use->source);
	ret = choose_id(c, opts_get(use->opts, "id"), &v->id, err);
	if (ret == 0 && !v->none)
		ret = parse_display(v, display, err);
	if (ret == 0 && !v->none)
		ret = parse_rest(v, use->opts, err);
	if (ret < 0)
		vnc_config_free(v);
	else
		list_append(&c->vncs, &v->link);
	return ret;
}
