def make_journal(folder):
    return None


def go_on_with_journal(*a):
    return "", [], "journal"
