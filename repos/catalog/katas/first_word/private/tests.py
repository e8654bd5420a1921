def test_1(f):
    assert f('hello world') == 'hello'


def test_2(f):
    assert f('one') == 'one'


def test_3(f):
    assert f('a b c d') == 'a'


def test_4(f):
    assert f('the quick brown fox') == 'the'
