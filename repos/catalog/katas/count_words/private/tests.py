def test_1(f):
    assert f('hello world') == 2


def test_2(f):
    assert f('one') == 1


def test_3(f):
    assert f('a b c d') == 4


def test_4(f):
    assert f('the quick brown fox') == 4
