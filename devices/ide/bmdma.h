/* Bus master IDE: one channel's registers and descriptor walk. */
#ifndef DEVICES_IDE_BMDMA_H
#define DEVICES_IDE_BMDMA_H

#include "devices/ide/ata.h"

struct mem;

struct bmdma {
	struct ata_channel *ch; /* [const] */
	struct mem *mem;	/* [const] */
	/* [dev.lock] saved */
	u8 cmd, status;
	u32 table;     /* as the guest set it */
	u32 at;	       /* address of the next descriptor */
	u32 addr, len; /* what is left of the current one */
	bool last;     /* the current one ends the table */
};

void bmdma_reset(struct bmdma *bm);
u8 bmdma_read(struct bmdma *bm, unsigned reg); /* reg 0..7 */
void bmdma_write(struct bmdma *bm, unsigned reg, u8 value);
void bmdma_irq(struct bmdma *bm); /* INTRQ rose */
/* For struct ata_ops, see ata.h. */
s64 bmdma_map(struct bmdma *bm, bool to_memory, u32 max, u32 unit);
void bmdma_moved(struct bmdma *bm, bool to_memory, u32 bytes);

extern const struct state_field bmdma_state[];
int bmdma_check(const struct bmdma *loaded, struct error *err);

#endif
