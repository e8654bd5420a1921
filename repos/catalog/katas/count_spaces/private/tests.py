def test_1(f):
    assert f('a b c') == 2


def test_2(f):
    assert f('abc') == 0


def test_3(f):
    assert f('') == 0


def test_4(f):
    assert f('   ') == 3
