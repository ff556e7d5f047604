/* Between the files of e1000: e1000.c (registers, interrupts), e1000_phy.c (EEPROM and
 * PHY), e1000_tx.c, e1000_rx.c (frames). */
#ifndef DEVICES_NET_E1000_INT_H
#define DEVICES_NET_E1000_INT_H

#include "base/loop.h"
#include "devices/net/e1000_regs.h"
#include "devices/net/nic.h"
#include "devices/pci.h"

#define E1000_REG_BYTES	   0x6000 /* of the 128 KiB: nothing is behind */
#define E1000_EEPROM_WORDS 64
#define E1000_PHY_REGS	   32
#define E1000_DESC_BYTES   16

/* The offload context that a descriptor sets: section 3.3.6. */
struct e1000_context {
	u8 ipcss, ipcso, tucss, tucso, tucmd, hdrlen;
	u16 ipcse, tucse, mss;
	u32 paylen;
};

/* Frames are handled on the main thread with dev.lock held, so that registers never
 * change under a frame; answers that come back while one is sent find it held.  To a tap
 * they go on the vCPU's thread that moves the tail, with the same lock: waking another
 * takes longer than a few frames do. */
struct e1000 {
	struct pci_dev pd;
	struct nic nic;			/* [main] */
	struct loop_call kick;		/* [main] once posted */
	bool kick_posted;		/* [dev.lock] */
	struct net_end *direct;		/* [dev.lock] any thread sends to it; NULL: main sends */
	bool paused;			/* [dev.lock] */
	struct timer throttle;		/* end of the interval without interrupts */
	u8 *frame;			/* [dev.lock] of the guest, as it is put together */
	u32 reg[E1000_REG_BYTES / 4];	/* [dev.lock] */
	u16 phy[E1000_PHY_REGS];	/* [dev.lock] */
	u16 eeprom[E1000_EEPROM_WORDS]; /* [dev.lock] */
	u32 io_addr;			/* [dev.lock] register behind the data port */
	/* Three-wire access to the EEPROM. */
	u32 eeprom_in;	     /* [dev.lock] bits shifted in since select, then the word */
	u16 eeprom_bits;     /* [dev.lock] read of the word at eeprom_in */
	bool eeprom_reading; /* [dev.lock] */
	struct e1000_context plain, tso; /* [dev.lock] of TXSM/IXSM and of TSE descriptors */
	u64 irq_due;			 /* [dev.lock] no interrupt before; 0: any time */
};

static inline u32 e1000_get(const struct e1000 *e, u32 off)
{
	return e->reg[off / 4];
}

static inline void e1000_put(struct e1000 *e, u32 off, u32 value)
{
	e->reg[off / 4] = value;
}

/* Count in a statistics register that sticks at its end, or in one of 64 bits. */
static inline void e1000_count(struct e1000 *e, u32 off)
{
	if (e->reg[off / 4] != UINT32_MAX)
		e->reg[off / 4]++;
}
void e1000_count64(struct e1000 *e, u32 off, u32 bytes);

/* Ring of descriptors: base, length in descriptors; 0 when the guest set up nonsense. */
u64 e1000_ring(const struct e1000 *e, u32 base_reg);
u32 e1000_ring_size(const struct e1000 *e, u32 base_reg);

/* e1000.c */
void e1000_cause(struct e1000 *e, u32 bits); /* set bits of ICR */
void e1000_kick(struct e1000 *e);	     /* the main thread shall look at the rings */
bool e1000_link_up(const struct e1000 *e);

/* e1000_phy.c */
void e1000_phy_reset(struct e1000 *e);
void e1000_phy_link(struct e1000 *e, bool up);
void e1000_eeprom_init(struct e1000 *e);
u32 e1000_read_eecd(const struct e1000 *e);
void e1000_write_eecd(struct e1000 *e, u32 value);
void e1000_write_eerd(struct e1000 *e, u32 value);
void e1000_write_mdic(struct e1000 *e, u32 value);

/* e1000_tx.c: send what is in the ring; dev.lock held. */
void e1000_transmit(struct e1000 *e);
/* e1000_rx.c */
bool e1000_can_receive(struct net_end *end);
bool e1000_receive(struct net_end *end, const struct net_frame *f);

#endif
