/* Options of networks and displays.  Those that need parts which are not there
 * yet are checked for their form, accepted and answered with one line. */
#include "base/log.h"
#include "vmm/options.h"

#include <errno.h>

static void not_there_yet(const struct option_use *use)
{
	log_warn("%s: networking is not available yet: the guest has no such network", use->source);
}

static int check_net(const struct option_use *use, bool nic, struct error *err)
{
	static const char *const backends[] = {"user", "tap", "bridge", "socket", "hubport", NULL};
	const char *type = opts_get(use->opts, "type");

	if (!type)
		return err_set(err, -EINVAL, "Parameter 'type' is missing");
	if (nic && !strcmp(type, "nic"))
		return 0;
	if (parse_choice(type, backends) < 0)
		return err_set(err, -EINVAL, "Parameter 'type' does not accept value '%s'", type);
	return 0;
}

int option_net(struct config *c, const struct option_use *use, struct error *err)
{
	const char *type = opts_get(use->opts, "type");
	int ret;

	if (type && !strcmp(type, "none"))
		return 0;
	ret = check_net(use, true, err);
	if (ret == 0)
		not_there_yet(use);
	return ret;
}

int option_nic(struct config *c, const struct option_use *use, struct error *err)
{
	return option_net(c, use, err);
}

int option_netdev(struct config *c, const struct option_use *use, struct error *err)
{
	const char *id = opts_get(use->opts, "id");
	int ret = check_net(use, false, err);

	if (ret < 0)
		return ret;
	if (!id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	if (!is_identifier(id))
		return err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	not_there_yet(use);
	return 0;
}

int option_display(struct config *c, const struct option_use *use, struct error *err)
{
	static const char *const others[] = {"gtk", "sdl", "curses", "vnc", "dbus", NULL};
	AUTO_FREE char *type = xstrdup(use->text);

	type[strcspn(type, ",=")] = 0;
	if (!strcmp(use->text, "none"))
		return 0;
	if (parse_choice(type, others) >= 0)
		return err_set(err, -EINVAL, "display '%s' is not available, only none", type);
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

/* none, [host]:number[,...], unix:path[,...] */
int option_vnc(struct config *c, const struct option_use *use, struct error *err)
{
	AUTO_FREE char *display = xstrdup(use->text);
	const char *number;
	u64 value;

	display[strcspn(display, ",")] = 0;
	if (!strcmp(display, "none"))
		return 0;
	number = strrchr(display, ':');
	if (!number || !number[1])
		return err_set(err, -EINVAL, "no vnc port specified");
	if (strncmp(display, "unix:", 5) &&
	    (parse_u64(number + 1, &value) < 0 || value > 65535 - 5900))
		return err_set(err, -EINVAL, "bad vnc display number '%s'", number + 1);
	log_info("%s: the VNC display is not drawn yet", use->source);
	return 0;
}
