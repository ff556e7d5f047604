/* Registers of the 82540EM and their bits. */
#ifndef DEVICES_NET_E1000_REGS_H
#define DEVICES_NET_E1000_REGS_H

/* Registers by their offset: Software Developer's Manual, section 13.3. */
enum {
	R_CTRL = 0x0000,
	R_STATUS = 0x0008,
	R_EECD = 0x0010,
	R_EERD = 0x0014,
	R_CTRL_EXT = 0x0018,
	R_MDIC = 0x0020,
	R_FCAL = 0x0028,
	R_VET = 0x0038,
	R_ICR = 0x00c0,
	R_ITR = 0x00c4,
	R_ICS = 0x00c8,
	R_IMS = 0x00d0,
	R_IMC = 0x00d8,
	R_RCTL = 0x0100,
	R_TCTL = 0x0400,
	R_LEDCTL = 0x0e00,
	R_PBA = 0x1000,
	R_RDBAL = 0x2800,
	R_RDBAH = 0x2804,
	R_RDLEN = 0x2808,
	R_RDH = 0x2810,
	R_RDT = 0x2818,
	R_TDBAL = 0x3800,
	R_TDBAH = 0x3804,
	R_TDLEN = 0x3808,
	R_TDH = 0x3810,
	R_TDT = 0x3818,
	R_STATS = 0x4000,
	R_MPC = 0x4010,
	R_GPRC = 0x4074,
	R_BPRC = 0x4078,
	R_MPRC = 0x407c,
	R_GPTC = 0x4080,
	R_GORCL = 0x4088,
	R_GOTCL = 0x4090,
	R_RUC = 0x40a4,
	R_ROC = 0x40ac,
	R_TORL = 0x40c0,
	R_TOTL = 0x40c8,
	R_TPR = 0x40d0,
	R_TPT = 0x40d4,
	R_MPTC = 0x40f0,
	R_BPTC = 0x40f4,
	R_TSCTC = 0x40f8,
	R_STATS_END = 0x4100,
	R_RXCSUM = 0x5000,
	R_MTA = 0x5200,
	R_RAL = 0x5400,
	R_RAH = 0x5404,
	R_VFTA = 0x5600,
	R_MANC = 0x5820,
};

enum {
	CTRL_FD = 1 << 0,
	CTRL_ASDE = 1 << 5,
	CTRL_SLU = 1 << 6,
	CTRL_SPEED_1000 = 2 << 8,
	CTRL_RST = 1 << 26,
	CTRL_VME = 1 << 30,
};
#define CTRL_PHY_RST 0x80000000u
enum { STATUS_FD = 1, STATUS_LU = 2, STATUS_SPEED_1000 = 2 << 6 };

enum {
	ICR_TXDW = 1 << 0,
	ICR_TXQE = 1 << 1,
	ICR_LSC = 1 << 2,
	ICR_RXDMT0 = 1 << 4,
	ICR_RXO = 1 << 6,
	ICR_RXT0 = 1 << 7,
	ICR_MDAC = 1 << 9,
	ICR_ALL = 0x1ffff,
};

enum {
	RCTL_EN = 1 << 1,
	RCTL_UPE = 1 << 3,
	RCTL_MPE = 1 << 4,
	RCTL_LPE = 1 << 5,
	RCTL_LBM = 3 << 6,
	RCTL_BAM = 1 << 15,
	RCTL_VFE = 1 << 18,
	RCTL_BSEX = 1 << 25,
	RCTL_SECRC = 1 << 26,
};
enum { TCTL_EN = 1 << 1, TCTL_PSP = 1 << 3 };

#endif
