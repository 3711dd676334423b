"use strict";
// What comes from the run arrives as JSON and reaches the page as text nodes and attributes only, never as markup.

const report = JSON.parse(document.getElementById("report").textContent);
const samples = report.samples; // a list for each field; a sample is a place in them
const SAMPLES = samples.id.length;
const STATUSES = ["seed", "accepted", "rejected"];
const grouped = new Intl.NumberFormat("en");
const rounded = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

function byId(id) {
  return document.getElementById(id);
}

// Children are elements and texts; null is none.
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// For the user's eyes: whole texts keep their line breaks, others are cut after a few lines.
function text(content, more = "") {
  return element("span", { class: `text ${more}`, dir: "auto" }, content);
}

function badge(place) {
  const status = STATUSES[samples.status[place]];
  return element("span", { class: `badge ${status}` }, status);
}

function nameOf(outerEpoch) {
  return outerEpoch === 0 ? "pretrained" : `outer epoch ${outerEpoch}`;
}

function figureText(value) {
  return value === null || value === undefined ? "–" : rounded.format(value);
}

// A name of a coded field, or null.
function named(field, place) {
  const code = samples[field].codes[place];
  return code < 0 ? null : samples[field].names[code];
}

function flagsOf(place) {
  return samples.flags.codes[place].map((code) => samples.flags.names[code]);
}

function option(value, label) {
  return element("option", { value }, label);
}

function hashOf(place) {
  return `#sample=${encodeURIComponent(samples.id[place])}`;
}

function link(place, label) {
  return element("a", { href: hashOf(place), class: "id", dir: "auto" }, label);
}
