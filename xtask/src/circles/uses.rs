//! Which file of a crate uses which others: names an item that is defined there, itself or through a re-export.
//!
//! Declarations of modules, re-exports and tests are not counted, and methods cannot be: syntax does not show whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree, Visibility};

/// Files below the sources with those that they use, and one item of each.
pub(super) type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Reads the sources of a crate.
pub(super) fn of(sources: &Path) -> Result<Uses> {
    Ok(Tree::read(sources)?.uses())
}

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    parent: usize,
    /// Where the files of its modules are.
    folder: PathBuf,
    modules: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// What is named in it, each as segments of a path.
    named: BTreeSet<Vec<String>>,
}

/// The modules of a crate; the first is its root.
#[derive(Debug)]
struct Tree {
    sources: PathBuf,
    modules: Vec<Module>,
    /// Those whose files are still to be read.
    unread: Vec<usize>,
}

/// What a path leads to: a module, or an item and the module in which it is defined.
#[derive(Clone, Copy)]
enum Target<'a> {
    Module(usize),
    Item(usize, &'a str),
}

impl Tree {
    fn read(sources: &Path) -> Result<Self> {
        let root = ["lib.rs", "main.rs"].into_iter().find(|name| sources.join(name).is_file());
        let root = root.with_context(|| format!("{} has no crate", sources.display()))?;
        let root = Module { file: root.into(), ..Module::default() };
        let mut tree = Self { sources: sources.to_owned(), modules: vec![root], unread: vec![0] };
        while let Some(at) = tree.unread.pop() {
            let path = sources.join(&tree.modules[at].file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
            Reader { tree: &mut tree, at }.read(&file.items);
        }
        Ok(tree)
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (at, module) in self.modules.iter().enumerate() {
            for path in &module.named {
                let Some(Target::Item(owner, item)) = self.resolve(at, path, 0) else { continue };
                let owner = &self.modules[owner].file;
                if *owner != module.file {
                    let of_file = uses.entry(module.file.clone()).or_default();
                    of_file.entry(owner.clone()).or_insert_with(|| item.to_owned());
                }
            }
        }
        uses
    }

    /// What a path leads to, as seen from a module: nothing when that is in another crate.
    fn resolve<'a>(&'a self, from: usize, path: &'a [String], depth: usize) -> Option<Target<'a>> {
        let mut at = from;
        for (number, name) in path.iter().enumerate() {
            at = match name.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => self.modules[at].parent,
                name => match self.lookup(at, name, number + 1 == path.len(), depth)? {
                    Target::Module(module) => module,
                    item @ Target::Item(..) => return Some(item),
                },
            };
        }
        Some(Target::Module(at))
    }

    fn lookup<'a>(&'a self, at: usize, name: &str, is_last: bool, depth: usize) -> Option<Target<'a>> {
        // An import of another crate by its own name would lead to itself for ever.
        if depth > 16 {
            return None;
        }
        let module = &self.modules[at];
        match (module.modules.get(name), module.items.get(name)) {
            (_, Some(item)) if is_last => return Some(Target::Item(at, item)),
            (Some(module), _) => return Some(Target::Module(*module)),
            (None, Some(item)) => return Some(Target::Item(at, item)),
            (None, None) => {}
        }
        if let Some(path) = module.imports.get(name) {
            return self.resolve(at, path, depth + 1);
        }
        module.globs.iter().find_map(|path| match self.resolve(at, path, depth + 1)? {
            Target::Module(glob) if glob != at => self.lookup(glob, name, is_last, depth + 1),
            _ => None,
        })
    }
}

/// Reads the items of one module into the tree, and finds those below it.
struct Reader<'a> {
    tree: &'a mut Tree,
    at: usize,
}

impl Reader<'_> {
    fn here(&mut self) -> &mut Module {
        &mut self.tree.modules[self.at]
    }

    fn read(&mut self, items: &[Item]) {
        for item in items.iter().filter(|item| !is_test(of_item(item).0)) {
            if let (_, Some(name)) = of_item(item) {
                self.here().items.insert(name.to_string());
            }
            self.visit_item(item);
        }
    }

    fn import(&mut self, tree: &UseTree, mut path: Vec<String>, is_use: bool) {
        let (name, target) = match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.import(&part.tree, path, is_use);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, path.clone(), is_use));
            }
            UseTree::Glob(_) => return self.here().globs.push(path),
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(name) => (name.rename.to_string(), name.ident.to_string()),
        };
        let name = if name == "self" { path.last().cloned().unwrap_or(name) } else { name };
        path.push(target);
        if is_use {
            self.here().named.insert(path.clone());
        }
        self.here().imports.insert(name, path);
    }

    /// Finds the paths among tokens, whose syntax only a macro knows.
    fn scan(&mut self, mut cursor: Cursor<'_>) {
        let mut path = Vec::new();
        while !cursor.eof() {
            if let Some((ident, after)) = cursor.ident() {
                path.push(ident.to_string());
                let colons = after.punct().and_then(|(first, next)| Some((first, next.punct()?)));
                if let Some((first, (second, next))) = colons
                    && first.as_char() == ':'
                    && second.as_char() == ':'
                    && next.ident().is_some()
                {
                    cursor = next;
                    continue;
                }
                self.here().named.insert(std::mem::take(&mut path));
                cursor = after;
            } else if let Some((inside, _, _, after)) = cursor.any_group() {
                self.scan(inside);
                cursor = after;
            } else if let Some((_, after)) = cursor.token_tree() {
                cursor = after;
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(of_item(item).0) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let (parent, name) = (self.at, item.ident.to_string());
        let folder = self.here().folder.join(&name);
        let beside = folder.with_extension("rs");
        let file = match &item.content {
            Some(_) => self.here().file.clone(),
            None if self.tree.sources.join(&beside).is_file() => beside,
            None => folder.join("mod.rs"),
        };
        let new = self.tree.modules.len();
        self.here().modules.insert(name, new);
        self.tree.modules.push(Module { file, parent, folder, ..Module::default() });
        match &item.content {
            Some((_, items)) => Reader { tree: self.tree, at: new }.read(items),
            None => self.tree.unread.push(new),
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let other_crate = item.leading_colon.as_ref().map(|_| String::new());
        self.import(&item.tree, other_crate.into_iter().collect(), matches!(item.vis, Visibility::Inherited));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.here().named.insert(segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.scan(TokenBuffer::new2(list.tokens.clone()).begin());
        }
    }

    fn visit_macro(&mut self, makro: &'ast syn::Macro) {
        visit::visit_macro(self, makro);
        self.scan(TokenBuffer::new2(makro.tokens.clone()).begin());
    }
}

/// The attributes of an item, and its name if it is one that can be used by it and is no module.
fn of_item(item: &Item) -> (&[Attribute], Option<&syn::Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// Whether something is there in tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}
