// Package quotas has client processes race for what an owner may hold in the real
// daemon, and kills them, and it.
package quotas
