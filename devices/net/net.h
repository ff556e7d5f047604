/* Ethernet between two ends: a NIC of the guest and a backend on the host, or two
 * ports that a hub joins.
 *
 * Thread: main, everywhere; a NIC brings its own work there.  A frame is lent for the
 * call.  Invariants: N1 peers point at each other; N2 what waits for an end that takes
 * nothing is bounded, and frames of one sender keep their order; N3 an end only gets
 * offloads (checksums left out, frames to be cut) that it has said it understands. */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include "base/base.h"
#include "base/error.h"
#include "base/list.h"

#include <sys/uio.h>

struct clock;
struct loop;
struct net;
struct net_end;
struct state_buf;

#define ETH_HEADER_BYTES 14
#define ETH_ADDR_BYTES	 6
#define ETH_VLAN_BYTES	 4
/* Longest frame: 64 KiB to be cut by who sends it on, and its headers. */
#define NET_FRAME_MAX	    (64 * 1024 + 256)
#define NET_QUEUE_MAX_BYTES (2 * MiB) /* N2 */

/* What is still to be done to a frame: virtio 1.2, section 5.1.6, struct virtio_net_hdr. */
enum { NET_NEEDS_CSUM = 1, NET_DATA_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCP4 = 1, NET_GSO_UDP = 3, NET_GSO_TCP6 = 4, NET_GSO_ECN = 0x80 };
struct net_offload {
	u8 flags, gso;
	u16 header_bytes, gso_bytes;
	u16 csum_start, csum_offset;
};

struct net_frame {
	struct net_offload offload;
	u16 queue; /* of the sender; keeps the frames of one connection together */
	const struct iovec *iov;
	unsigned n;
	u32 bytes;
};

/* Offloads that an end understands in frames it gets. */
enum {
	NET_TAKES_CSUM = 1,
	NET_TAKES_TCP4 = 2,
	NET_TAKES_TCP6 = 4,
	NET_TAKES_ECN = 8,
	NET_TAKES_UDP = 16,
	NET_TAKES_ALL = 31,
};

struct net_ops {
	const char *type; /* "user", "tap", "nic", ... */
	/* Could it take a frame now?  NULL: always. */
	bool (*can_receive)(struct net_end *end);
	/* Take a frame (or drop it, that is its business): true; not now: false. */
	bool (*receive)(struct net_end *end, const struct net_frame *f);
	/* The same on any thread, if not `limited`; false: it is lost.  May be NULL. */
	bool (*receive_direct)(struct net_end *end, const struct net_frame *f);
	/* The peer takes frames again after it did not, or is gone.  May be NULL. */
	void (*writable)(struct net_end *end);
	/* Own link or the peer's went up or down.  May be NULL. */
	void (*link_changed)(struct net_end *end);
	/* The peer now takes these in frames of ours; NULL: we never send any. */
	void (*set_offload)(struct net_end *end, u32 takes);
	/* What a snapshot keeps of a backend; all NULL: nothing.  Loading cannot be
	 * undone, so it comes last. */
	void (*save)(struct net_end *end, struct state_buf *out);
	u32 (*state_version)(struct net_end *end);
	int (*load)(struct net_end *end, u32 version, const u8 *data, size_t bytes);
	/* A backend of `struct net`'s own making goes.  NULL: somebody else's. */
	void (*free)(struct net_end *end);
};

struct net_end {
	const struct net_ops *ops; /* [const] */
	struct net *net;	   /* [const] NULL: listed nowhere (tests) */
	struct list link;
	char name[64];
	char info[256]; /* for `info network`, behind "type=X" */
	struct net_end *peer;
	bool is_nic;	   /* [const] */
	bool limited;	   /* [const] has so little room that it may well say "not now" */
	bool link_down;	   /* set_link off */
	bool keeps_off;	   /* blocked senders wait for net_flush */
	bool offloads;	   /* [const] frames from and to it may carry offloads */
	u32 takes;	   /* NET_TAKES_... */
	u16 queues;	   /* [const] of a backend with several; 0: one */
	struct list dumps; /* files of what passes: dump.h */
	struct list queue;
	u64 queued_bytes;
	u64 dropped;
};

/* All ends there are, for commands and names. */
int net_new(struct net **out, struct loop *loop, struct clock *clock);
void net_free(struct net *net); /* frees backends and hubs; NICs are gone */
struct loop *net_loop(struct net *net);
struct clock *net_clock(struct net *net);
struct list *net_ends(struct net *net);				 /* struct net_end.link */
struct net_end *net_find(struct net *net, const char *name);	 /* NULL: no such end */
void net_make_name(struct net *net, char *to, const char *stem); /* "stem.N" */

/* An address for a NIC: 52:54:00:12:34:56 and up, none twice; `given`: mac says it. */
void net_give_mac(struct net *net, u8 mac[ETH_ADDR_BYTES], bool given);

/* Storage is the caller's.  net and name may be NULL. */
void net_end_init(struct net_end *end, struct net *net, const struct net_ops *ops,
		  const char *name);
void net_end_fini(struct net_end *end);
void net_join(struct net_end *a, struct net_end *b);
void net_part(struct net_end *end);

/* Is there somebody, and does the link stand? */
bool net_link_is_up(const struct net_end *end);
void net_set_link(struct net_end *end, bool up);

/* Would a frame go through at once?  One that would not is told by `writable`. */
bool net_can_send(struct net_end *from);
void net_send(struct net_end *from, const struct net_frame *f); /* queued, or dropped: N2 */
/* Who takes plain frames by receive_direct until link_changed or it says false; or NULL. */
struct net_end *net_direct(struct net_end *from);
/* `to` takes frames again: deliver what waits. */
void net_flush(struct net_end *to);
void net_purge(struct net_end *to); /* forget what waits */

/* What a NIC may ask of its peer: are frames with offloads understood? */
bool net_peer_offloads(const struct net_end *end);
/* From now on `end` understands these. */
void net_set_takes(struct net_end *end, u32 takes);

/* State of all backends that have one (state.c): decode changes nothing. */
struct net_image;
void net_save(struct net *net, struct state_buf *out);
int net_load_image(struct net *net, struct state_buf *in, struct net_image **out,
		   struct error *err);
int net_load(struct net *net, struct net_image *image, struct error *err);
void net_image_free(struct net_image *image); /* NULL is fine */

/* A new port on hub `id`, to be joined by the caller.  name NULL: hubXportY. */
struct net_end *net_hub_port(struct net *net, unsigned id, const char *name);
/* Which hub a port belongs to; -1: it is no port. */
int net_hub_of(const struct net_end *end);

#endif
