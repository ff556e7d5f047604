/* What a snapshot keeps of networks: each backend's own state, under its name.
 * Thread: main; the machine stands still. */
#include "devices/net/net.h"

#include "vmm/core/state.h"

#include <errno.h>
#include <stdio.h>

#define STATE_MAX_BYTES (1 * MiB)

struct piece {
	u32 version, bytes;
};

static const struct state_field piece_table[] = {
	STATE(struct piece, version),
	STATE(struct piece, bytes),
	STATE_END,
};

struct net_image {
	u32 n;
	struct piece *pieces;
	u8 **data;
};

static void section_name(char *to, size_t room, const struct net_end *end)
{
	snprintf(to, room, "net %s", end->name);
}

void net_save(struct net *net, struct state_buf *out)
{
	if (!net)
		return;
	list_for_each (pos, net_ends(net)) {
		struct net_end *end = list_entry(pos, struct net_end, link);
		struct state_buf own = {.data = NULL};
		struct piece piece;
		char name[80];

		if (!end->ops->save)
			continue;
		end->ops->save(end, &own);
		piece = (struct piece){end->ops->state_version(end), (u32)own.bytes};
		section_name(name, sizeof(name), end);
		state_save(out, name, piece_table, &piece);
		state_put_bytes(out, own.data, own.bytes);
		state_buf_fini(&own);
	}
}

void net_image_free(struct net_image *image)
{
	if (!image)
		return;
	for (u32 i = 0; i < image->n; i++)
		free(image->data[i]);
	free(image->data);
	free(image->pieces);
	free(image);
}

static int load_piece(struct net_end *end, struct state_buf *in, struct net_image *image,
		      struct error *err)
{
	struct piece *piece = &image->pieces[image->n];
	char name[80];
	int ret;

	section_name(name, sizeof(name), end);
	ret = state_load(in, name, piece_table, piece, err);
	if (ret < 0)
		return ret;
	if (piece->bytes > STATE_MAX_BYTES || piece->bytes > in->bytes - in->at)
		return err_set(err, -EINVAL, "%s: state of %u bytes is not there", name,
			       piece->bytes);
	if (piece->version > end->ops->state_version(end))
		return err_set(err, -EINVAL, "%s: state version is %u, expected up to %u", name,
			       piece->version, end->ops->state_version(end));
	image->data[image->n] = xalloc(piece->bytes + 1);
	memcpy(image->data[image->n++], in->data + in->at, piece->bytes);
	in->at += piece->bytes;
	return 0;
}

int net_load_image(struct net *net, struct state_buf *in, struct net_image **out, struct error *err)
{
	struct net_image *image = xnew(struct net_image);
	u32 n = 0;
	int ret = 0;

	if (net)
		list_for_each (pos, net_ends(net))
			n++;
	image->pieces = xnew_n(struct piece, n + 1);
	image->data = xnew_n(u8 *, n + 1);
	if (n)
		list_for_each (pos, net_ends(net)) {
			struct net_end *end = list_entry(pos, struct net_end, link);

			if (ret == 0 && end->ops->save)
				ret = load_piece(end, in, image, err);
		}
	if (ret < 0) {
		net_image_free(image);
		return ret;
	}
	*out = image;
	return 0;
}

int net_load(struct net *net, struct net_image *image, struct error *err)
{
	u32 i = 0;

	if (!image->n)
		return 0;
	list_for_each (pos, net_ends(net)) {
		struct net_end *end = list_entry(pos, struct net_end, link);
		int ret;

		net_purge(end);
		if (!end->ops->save)
			continue;
		assert(i < image->n);
		ret = end->ops->load(end, image->pieces[i].version, image->data[i],
				     image->pieces[i].bytes);
		if (ret < 0)
			return err_set_errno(err, ret, "%s: the state does not load", end->name);
		i++;
	}
	return 0;
}
