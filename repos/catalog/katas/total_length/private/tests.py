def test_1(f):
    assert f(['a', 'bc']) == 3


def test_2(f):
    assert f([]) == 0


def test_3(f):
    assert f(['hello']) == 5


def test_4(f):
    assert f(['', 'xx', 'yyy']) == 5
