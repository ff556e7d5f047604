/* Options of networks.  Their form is checked here; nets.c makes them. */
#include "base/log.h"
#include "devices/net/backends.h"
#include "devices/net/checksum.h"
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

#define NICS_MAX 8

static const char card_keys[] = "model macaddr name addr vectors netdev";

static void keep(struct config *c, const struct option_use *use, enum net_use kind)
{
	struct net_config *n = xnew(struct net_config);

	n->source = xstrdup(use->source);
	n->use = kind;
	for (unsigned i = 0; i < use->opts->n; i++)
		opts_add(&n->opts, use->opts->v[i].name, use->opts->v[i].value,
			 use->opts->v[i].bare);
	list_append(&c->nets, &n->link);
}

/* Only keys of this backend, and a few that every one has. */
static int check_keys(const struct opts *opts, const char *common, const char *own,
		      struct error *err)
{
	AUTO_FREE char *keys = xasprintf("type %s %s", common, own);

	return opts_check(opts, keys, err);
}

static int check_id(const struct opts *opts, struct error *err)
{
	const char *id = opts_get(opts, "id");

	if (id && !is_identifier(id))
		return err_set(err, -EINVAL,
			       "Parameter 'id' expects an identifier\nIdentifiers consist of "
			       "letters, digits, '-', '.', '_', starting with a letter.");
	return 0;
}

static int check_backend(const struct opts *opts, const char *common, struct error *err)
{
	const char *type = opts_get(opts, "type");
	const struct net_backend *b;

	if (!type)
		return err_set(err, -EINVAL, "Parameter 'type' is missing");
	b = net_backend_find(type);
	if (!b)
		return err_set(err, -EINVAL, "Parameter 'type' does not accept value '%s'", type);
	if (check_keys(opts, common, b->keys, err) < 0)
		return err->code;
	return check_id(opts, err);
}

static bool asks_for_help(const char *text)
{
	return text && (!strcmp(text, "help") || !strcmp(text, "?"));
}

static bool model_help(struct config *c, const struct opts *opts)
{
	if (!asks_for_help(opts_get(opts, "model")))
		return false;
	printf("Supported NIC models:\ne1000\nvirtio-net-pci\n");
	c->writes_nothing = true;
	return true;
}

static int check_card(const struct config *c, const struct opts *opts, const char *mac_key,
		      struct error *err)
{
	const char *mac = opts_get(opts, mac_key);
	unsigned cards = 0;
	u8 bytes[6];

	if (mac && !net_parse_mac(mac, bytes))
		return err_set(err, -EINVAL, "invalid syntax for ethernet address");
	if (mac && bytes[0] & 1)
		return err_set(err, -EINVAL,
			       "NIC cannot have multicast MAC address (odd 1st byte)");
	list_for_each (pos, &c->nets) {
		const struct net_config *n = list_entry(pos, struct net_config, link);

		cards += n->use == NET_USE_NIC || !strcmp(opts_get(&n->opts, "type"), "nic");
	}
	if (cards >= NICS_MAX)
		return err_set(err, -E2BIG, "too many NICs");
	return 0;
}

int option_net(struct config *c, const struct option_use *use, struct error *err)
{
	const char *type = opts_get(use->opts, "type");
	int ret;

	c->no_default_net = true;
	if (type && !strcmp(type, "none"))
		return check_keys(use->opts, "", "", err);
	if (type && !strcmp(type, "nic")) {
		ret = check_keys(use->opts, "", card_keys, err);
		if (ret == 0 && model_help(c, use->opts))
			return 0;
		if (ret == 0)
			ret = check_card(c, use->opts, "macaddr", err);
	} else {
		ret = check_backend(use->opts, "id", err);
	}
	if (ret == 0)
		keep(c, use, NET_USE_NET);
	return ret;
}

int option_nic(struct config *c, const struct option_use *use, struct error *err)
{
	const char *type = opts_get(use->opts, "type");
	int ret;

	c->no_default_net = true;
	if (model_help(c, use->opts))
		return 0;
	if (type && !strcmp(type, "none"))
		return check_keys(use->opts, "id model mac", "", err);
	ret = check_backend(use->opts, "id model mac", err);
	if (ret == 0)
		ret = check_card(c, use->opts, "mac", err);
	if (ret == 0)
		keep(c, use, NET_USE_NIC);
	return ret;
}

static int netdev_help(struct config *c)
{
	printf("Available netdev backend types:\n");
	for (const struct net_backend *b = net_backends; b->type; b++)
		printf("%s\n", b->type);
	c->writes_nothing = true;
	return 0;
}

static bool id_is_taken(const struct config *c, const char *id)
{
	list_for_each (pos, &c->nets) {
		const struct net_config *n = list_entry(pos, struct net_config, link);
		const char *other = opts_get(&n->opts, "id");

		if (n->use == NET_USE_NETDEV && other && !strcmp(other, id))
			return true;
	}
	return false;
}

int option_netdev(struct config *c, const struct option_use *use, struct error *err)
{
	const char *id = opts_get(use->opts, "id");
	int ret;

	c->no_default_net = true;
	if (asks_for_help(opts_get(use->opts, "type")))
		return netdev_help(c);
	if (opts_has(use->opts, "type") && !id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	ret = check_backend(use->opts, "id", err);
	if (ret < 0)
		return ret;
	if (id_is_taken(c, id))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for netdev", id);
	keep(c, use, NET_USE_NETDEV);
	return 0;
}
