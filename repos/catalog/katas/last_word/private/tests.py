def test_1(f):
    assert f('hello world') == 'world'


def test_2(f):
    assert f('one') == 'one'


def test_3(f):
    assert f('a b c d') == 'd'


def test_4(f):
    assert f('the quick brown fox') == 'fox'
