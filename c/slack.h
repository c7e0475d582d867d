/* SPDX-License-Identifier: BSD-3-Clause */
/* slack.h: timer slack for Go's threads. */
#ifndef KEA_SLACK_H
#define KEA_SLACK_H

/* kea_slack_restore gives the main thread its own timer slack back, once Go has
 * started; later calls do nothing. */
void kea_slack_restore(void);

#endif /* KEA_SLACK_H */
