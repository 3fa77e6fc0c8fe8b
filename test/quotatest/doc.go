// Package quotatest is what every store of package quota must do: one suite that any
// of them runs. [Run] has it whole. The stores that are made for it start empty.
package quotatest
