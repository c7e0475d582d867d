/* SPDX-License-Identifier: BSD-3-Clause */
/* config.h: settings as Redis configuration. Main thread only. */
#ifndef KEA_CONFIG_H
#define KEA_CONFIG_H

/* Frees what is kept between calls of the server. */
void kea_config_free(void);

#endif /* KEA_CONFIG_H */
