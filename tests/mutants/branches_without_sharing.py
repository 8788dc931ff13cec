"""Every schedule a unit of its own, shared beginnings trained again: caught by
test_branches__share_no_epoch_and_lose_none."""


def branches(schedules):
    return [{name: phases} for name, phases in schedules.items()]
