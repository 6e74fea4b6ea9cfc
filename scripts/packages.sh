# packages.sh: Debian packages for those who may not install any: fetched and unpacked into a folder. Sourced by other scripts.
#
#   packages_known NAME      makes apt-get know the package NAME: fetches the lists into ./state when the system has none
#   packages_fetch NAME...   the packages into the current folder, unpacked into ./root; what went wrong is in ./log
# shellcheck shell=sh

packages_lists=

packages_apt() { # apt-get with short timeouts, its state in our folder when the system's lists are empty
    apt-get -q -o Acquire::Retries=0 -o Acquire::http::Timeout=8 -o Acquire::https::Timeout=8 \
        -o APT::Sandbox::User= -o Debug::NoLocking=1 ${packages_lists:+"$packages_lists"} "$@"
}

packages_known() { # NAME
    if apt-cache show "$1" > /dev/null 2>&1; then return 0; fi
    mkdir -p state/lists/partial
    packages_lists=-oDir::State::Lists=$PWD/state/lists
    packages_apt update > log 2>&1
}

packages_fetch() { # NAME...
    for package; do
        packages_apt download "$package" > log 2>&1 && dpkg-deb -x "$package"_*.deb root || return 1
    done
}
