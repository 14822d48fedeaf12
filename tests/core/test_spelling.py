from segwright.core.spelling import composed


def test_two_spellings_of_a_name_become_one():
    assert composed("A\u0308nderung") == composed("Änderung") == "\u00c4nderung"
    assert composed("plain") == "plain" and composed("\ud800") == "\ud800"  # half a character, from a name that is no UTF-8
    assert composed("ﬁ²") == "ﬁ²"  # signs that look otherwise stay what they are
